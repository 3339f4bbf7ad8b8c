"""Which files of a folder or a zip are read, which are not and why, and what is said of both."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sekron_edge.data import image_folder, photographs
from sekron_edge.data._audio import AUDIO, AudioData
from sekron_edge.data._copies import copies
from sekron_edge.data._files import FileTree
from sekron_edge.data._regression_data import REGRESSION, RegressionData
from sekron_edge.data._segmentation import SEGMENTATION, SegmentationData
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.pipeline import load_config, run_job
from sekron_edge.pipeline._progress import LogProgress


def image(path: Path, seed: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def make(root: Path, *names: str) -> Path:
    """Make images, each different, at these names."""
    for seed, name in enumerate(names):
        image(root / name, seed)
    return root


USUAL = ("train/ant/0.png", "train/ant/1.png", "train/bee/0.png", "test/ant/0.png", "test/bee/0.png")


def packed(folder: Path, path: Path, called: Callable[[str], str] = str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo("x")
                # The name as it is: ZipInfo itself would put another separator into it.
                entry.filename = called(file.relative_to(folder).as_posix())
                archive.writestr(entry, file.read_bytes())
    return path


def test_what_was_read_and_what_was_not_is_said_with_numbers_and_an_example(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *USUAL, "extra/a.png", "train/loose.png", "val/ant/9.png")
    image(root / "train/bee/grey.png", 77, mode="L", size=(9, 7))
    for name in ("train/ant/a.heic", "train/ant/b.HEIC", "test/README", ".git/config", "train/ant/._0.png",
                 "train/.ipynb_checkpoints/0-checkpoint.png", "train/ant/@eaDir/0.png"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"nothing")
    data = image_folder(root, memory_bytes=0)
    assert data.labels == ("ant", "bee")
    counts, left = data.notes
    assert counts == (
        f"{root}: 4 training and 2 held-out images of 2 classes (ant, bee); 5x6 to 7x9 pixels, RGB 5, L 1 in the 6 "
        "looked at"
    )
    assert left == (
        f"{root}: not read: 2 outside of train/ and test/, as extra/a.png; 3 of other kinds (.heic 2, without a suffix "
        "1), as test/README; 1 in no folder of a class, as train/loose.png; 4 hidden or a system's own, as .git"
    )


@pytest.mark.parametrize(
    "names",
    [
        [name.replace("train", "Train").replace("test", "TEST") for name in USUAL],
        [f"flowers/{name}" for name in USUAL],
        [f"downloads/flowers/v2/{name}" for name in USUAL],
        [f"flowers/{name.replace('test', 'Val')}" for name in USUAL],
    ],
)
def test_splits_are_found_however_they_are_spelled_and_whatever_is_around_them(
    names: list[str], tmp_path: Path
) -> None:
    root = make(tmp_path / "data", *names)
    (root / "README.txt").write_text("loose beside the folder")
    for path in (root, packed(root, tmp_path / "data.zip")):
        data = image_folder(path)
        assert data.labels == ("ant", "bee")
        assert (len(data.train_images), len(data.heldout_images)) == (3, 2)
        (left,) = data.notes[1:]
        assert left.startswith(f"{path}: not read: 1 outside of ")
        assert left.endswith(", as README.txt")


@pytest.mark.parametrize("called", [lambda name: name.replace("/", "\\"), "./{}".format, "/{}".format])
def test_names_in_zips_may_have_other_separators_and_beginnings(called: Callable[[str], str], tmp_path: Path) -> None:
    path = packed(make(tmp_path / "data", *USUAL), tmp_path / "data.zip", called)
    data = image_folder(path)
    assert data.labels == ("ant", "bee")
    assert len(data.train_images) == 3


def test_an_exact_name_comes_before_another_spelling(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *USUAL, "Train/cow/0.png")
    data = image_folder(root)
    assert data.labels == ("ant", "bee")
    assert "1 outside of train/ and test/, as Train/cow/0.png" in data.notes[1]


def test_linked_folders_are_read_and_links_that_lead_nowhere_or_back_are_said(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *USUAL[:3])
    make(tmp_path / "elsewhere", *[f"{number}.png" for number in range(3)])
    image(tmp_path / "elsewhere" / "bee.png", 50)
    for label in ("ant", "bee"):
        (root / "test").mkdir(exist_ok=True)
        (root / "test" / label).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "train" / "ant" / "gone.png").symlink_to(tmp_path / "gone.png")
    (root / "train" / "ant" / "up").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "train" / "ant" / "pipe.png")
    data = image_folder(root)
    assert len(data.heldout_images) == 8
    assert "3 links that lead nowhere or back, or no files, as train/ant/gone.png" in data.notes[1]


def test_what_is_there_instead_is_said(tmp_path: Path) -> None:
    for name in ("train/ant/a.heic", "test/ant/b.heic"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"found 2 of other kinds \(\.heic 2\), as test/ant/b\.heic"):
        image_folder(tmp_path)
    with pytest.raises(DataError, match=r"must have files in train/: .*found 1 of other kinds \(\.heic 1\)"):
        image_folder(tmp_path, train="train")


def test_copies_of_training_images_are_said_and_nothing_but_copies_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *USUAL)
    (root / "test" / "bee" / "1.png").write_bytes((root / "train" / "ant" / "1.png").read_bytes())
    for path in (root, packed(root, tmp_path / "data.zip")):
        (warning,) = image_folder(path).notes[1:]
        assert warning.startswith(
            f"warning: {path}: 1 of 3 held-out images are copies of training data, as test/bee/1.png of "
            "train/ant/1.png. Figures on held-out data"
        )
    for name in ("test/ant/0.png", "test/bee/0.png"):
        (root / name).write_bytes((root / "train" / "bee" / "0.png").read_bytes())
    for path in (root, packed(root, tmp_path / "all.zip")):
        with pytest.raises(DataError, match=r"every held-out file is a copy of a training file, as test/ant/0\.png of"):
            image_folder(path)


def test_only_what_may_be_a_copy_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"train/a": b"a" * 9000, "train/b": b"b" * 9000, "train/c": b"c", "test/a": b"a" * 9000, "test/d": b"dd",
             "test/e": b"a" * 8999 + b"e"}  # fmt: skip
    for name, content in sizes.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    tree = FileTree(tmp_path)
    read: list[str] = []
    whole = tree.read

    def recorded(name: str) -> bytes:
        read.append(name)
        return whole(name)

    monkeypatch.setattr(tree, "read", recorded)
    train, heldout = (sorted(name for name in tree.names if name.startswith(part)) for part in ("train", "test"))
    found = copies(tree, train, heldout)
    assert found.of == {"test/a": "train/a"}
    assert found.compared == 3
    assert sorted(read) == ["test/a", "test/e", "train/a"]
    assert copies(tree, train, heldout, most_read=3).compared == 1


def test_copies_among_images_that_are_set_aside_count_too(tmp_path: Path) -> None:
    root = make(tmp_path / "data", *[f"ant/{number}.png" for number in range(4)])
    (root / "ant" / "4.png").write_bytes((root / "ant" / "0.png").read_bytes())
    said = {seed: image_folder(root, seed=seed, calibration_samples=2).notes for seed in range(8)}
    assert all("so some were set aside" in notes[0] for notes in said.values())
    assert {len(notes) for notes in said.values()} == {1, 2}


def test_photographs_masks_values_and_sounds_are_described_as_well(tmp_path: Path) -> None:
    root = make(tmp_path / "photographs", "train/0.png", "test/0.png", "other/0.png")
    (root / "train" / "a.txt").write_text("nothing")
    assert photographs(root).notes == (
        f"{root}: 1 training and 1 held-out photographs; 5x6 pixels, RGB in the 2 looked at",
        f"{root}: not read: 1 outside of train/ and test/, as other/0.png; 1 of other kinds (.txt 1), as train/a.txt",
    )
    root = make(tmp_path / "masks", "Train/images/0.png", "test/images/0.png")
    for name in ("Train/masks/0.png", "test/masks/0.png", "test/masks/alone.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((6, 5), np.uint8)).save(root / name)
    section = SegmentationData.model_validate({"path": root, "classes": ["no", "yes"]})
    notes = SEGMENTATION.load(section, seed=0, cache=tmp_path).notes
    assert notes[1] == f"{root}: not read: 1 masks without an image, as test/masks/alone.png"
    root = make(tmp_path / "values", "train/0.png", "train/1.png", "test/0.png")
    (root / "targets.csv").write_text("train/0.png,1\ntest/0.png,2\n")
    values = RegressionData.model_validate({"path": root})
    notes = REGRESSION.load(values, seed=0, cache=tmp_path).notes
    assert notes[0].startswith(f"{root}: 1 training and 1 held-out images with values; 5x6 pixels")
    assert notes[1] == f"{root}: not read: 1 images that no row names, as train/1.png"
    root = tmp_path / "sounds"
    for name in ("train/yes_a.wav", "test/yes_b.wav", "test/no_b.wav", "test/_noise_/x.wav", "test/yes_c.mp3"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x40\x1f\0\0\1\0\x08\0data\x10\0\0\0"
        (root / name).write_bytes(head + name.encode().ljust(16)[:16])
    sounds = AudioData.model_validate(
        {"path": root, "names": "{label}_{speaker}", "classes": ["yes"], "features": "waveform", "rate": 8000}
    )
    notes = AUDIO.load(sounds, seed=0, cache=tmp_path).notes
    assert notes == (
        f"{root}: 1 training and 1 held-out sounds of 1 class (yes)",
        f"{root}: not read: 1 of other labels, as test/no_b.wav; 1 in folders that begin with _, as "
        "test/_noise_/x.wav; 1 of other kinds (.mp3 1), as test/yes_c.mp3",
    )


@pytest.mark.parametrize("value", [1e9, 70_000, -1, 0.5])
def test_masks_of_32_bits_are_read_or_refused_by_their_value(value: float, tmp_path: Path) -> None:
    root = make(tmp_path / "masks", "train/images/0.png", "test/images/0.png")
    for split in ("train", "test"):
        (root / split / "masks").mkdir()
        pixels = np.zeros((6, 5), np.int32 if value == int(value) else np.float32)
        Image.fromarray(pixels).save(root / split / "masks" / "0.tif")
        pixels[2, 3] = value
    Image.fromarray(pixels).save(root / "test" / "masks" / "0.tif")
    task = SEGMENTATION.load(
        SegmentationData.model_validate({"path": root, "classes": ["no", "yes"]}), seed=0, cache=tmp_path
    )
    with pytest.raises(DataError, match=r"test/masks/0\.tif has (a pixel of value|values that are no integers)"):
        task.heldout[0]
    if value == int(value):
        assert task.train[0][1].unique().tolist() == [0]


class Said(LogProgress):
    """Keeps what a job says."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def test_a_job_says_it_before_anything_is_trained(tmp_path: Path) -> None:
    make(tmp_path / "data", *USUAL)
    (tmp_path / "data" / "test" / "ant" / "1.png").write_bytes((tmp_path / "data" / USUAL[0]).read_bytes())
    (tmp_path / "job.toml").write_text(
        """
        name = "x"
        [model]
        factory = "torch.nn:Identity"
        [data]
        source = "image-folder"
        path = "data"
        """
    )
    progress = Said()
    with pytest.raises(ConfigError, match="the model has no weights"):
        run_job(load_config(tmp_path / "job.toml"), tmp_path / "out", progress=progress)
    assert len(progress.texts) == 2
    assert "3 training and 3 held-out images of 2 classes" in progress.texts[0]
    assert "1 of 3 held-out images are copies of training data, as test/ant/1.png of" in progress.texts[1]
