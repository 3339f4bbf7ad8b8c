"""Image folders of any size and form: read when needed, preprocessed as the model was trained, classes by a file."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sekron_edge.data import ClassificationData, ImageData, Preprocessing, classification, image_folder
from sekron_edge.data._classification import CLASSIFICATION
from sekron_edge.data._file_tensors import StackedImages
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Task


def photograph(seed: int, height: int, width: int) -> Image.Image:
    """Return something smooth, in colour, that no two seeds share."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def make_folder(path: Path, splits: dict[str, int], classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    seed = 0
    for split, count in splits.items():
        for label in classes:
            folder = path / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                seed += 1
                photograph(seed, 20 + seed % 7, 26 - seed % 5).save(folder / f"{index}.png")
    return path


def load(path: Path, **keys: Any) -> Task:
    section = ClassificationData.model_validate({"source": "image-folder", "path": path, **keys})
    return CLASSIFICATION.load(section, seed=0, cache=path.parent / "cache")


def test_images_read_when_needed_are_the_same_as_those_in_memory(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 4, "test": 2})
    how = Preprocessing(resize=12, crop=(10, 8))
    tasks = [
        classification(image_folder(folder, how, memory_bytes=most), calibration_samples=4, seed=3)
        for most in (1 << 20, 0)
    ]
    assert tasks[0].normalization == tasks[1].normalization
    for eager, unread in zip(*((task.train, task.calibration, task.heldout) for task in tasks), strict=True):
        assert len(eager) == len(unread)
        for index in range(len(eager)):
            assert eager[index][0].shape == (3, 10, 8)
            assert eager[index][0].equal(unread[index][0])
            assert eager[index][1].equal(unread[index][1])


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 4, "test": 2})
    last = folder / "train" / "bee" / "3.png"
    content = last.read_bytes()
    last.write_bytes(b"broken")
    data = image_folder(folder, Preprocessing(size=(8, 8)), memory_bytes=0)
    assert isinstance(data.train_images, StackedImages)
    data.train_images[torch.arange(7)]
    with pytest.raises(DataError, match=r"train/bee/3\.png is not a readable image"):
        data.train_images[torch.arange(8)]
    last.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"train/bee/3\.png is not a readable image"):
        data.train_images[torch.arange(8)]
    # A copy for another process has no open file with it.
    assert pickle.loads(pickle.dumps(data.train_images))[torch.arange(7)].equal(data.train_images[torch.arange(7)])


def test_images_are_resized_as_torchvision_does() -> None:
    """The rule: shorter side, the other in proportion and rounded down, then the rounded centre."""
    image = photograph(0, 31, 47)
    resized = image.resize((int(20 * 47 / 31), 20), Image.Resampling.BICUBIC)
    assert resized.size == (30, 20)
    expected = np.asarray(resized)[round(3 / 2) : round(3 / 2) + 17, 6:24]
    found = Preprocessing(resize=20, crop=(17, 18), interpolation="bicubic").placed(image, "image")
    assert np.array_equal(np.asarray(found), expected)
    squeezed = Preprocessing(size=(9, 7), interpolation="nearest").placed(image, "image")
    assert squeezed.size == (7, 9)
    assert set(map(tuple, np.asarray(squeezed).reshape(-1, 3))) <= set(map(tuple, np.asarray(image).reshape(-1, 3)))


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 1, "test": 1})
    task = load(folder, size=8, colours="grey", mean=[0.5], std=[0.5])
    assert task.heldout[0][0].shape == (1, 8, 8)


@pytest.mark.parametrize("split", ["val", "validation", "testing"])
def test_other_names_of_splits_are_known(tmp_path: Path, split: str) -> None:
    task = load(make_folder(tmp_path / "images", {"train": 2, split: 1}), size=8)
    assert len(task.heldout) == 2  # type: ignore[arg-type]
    assert len(task.train) == 4  # type: ignore[arg-type]


def test_splits_can_be_named_and_test_images_without_classes_are_no_split(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 2, "val": 1, "val2": 3})
    (folder / "test").mkdir()
    photograph(0, 9, 9).save(folder / "test" / "0001.png")
    assert len(load(folder, size=8).heldout) == 2  # type: ignore[arg-type]
    assert len(load(folder, size=8, heldout="val2").heldout) == 6  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"must have files in val3/: images in <class>/; found none"):
        load(folder, heldout="val3")


@pytest.mark.parametrize("where", ["val", ""])
def test_without_training_images_some_are_set_aside_for_calibration(tmp_path: Path, where: str) -> None:
    folder = make_folder(tmp_path / "images", {where: 6})
    tasks = {count: load(folder, size=8, calibration_samples=count) for count in (4, 512)}
    for count, expected in ((4, 4), (512, 6)):
        task = tasks[count]
        assert len(task.calibration) == expected  # type: ignore[arg-type]
        assert len(task.train) == expected  # type: ignore[arg-type]
        assert len(task.heldout) == 12 - expected  # type: ignore[arg-type]
        seen = [image for image, _ in (task.calibration[index] for index in range(expected))]
        held = [image for image, _ in (task.heldout[index] for index in range(12 - expected))]
        assert not any(one.equal(other) for one in seen for other in held)
    targets = [int(tasks[4].calibration[index][1]) for index in range(4)]
    assert sorted(targets) == [0, 0, 1, 1]


def test_training_images_alone_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 2})
    with pytest.raises(DataError, match=r"in test/ or val/.*; found training files only.*data\.heldout"):
        load(folder, size=8)
    with pytest.raises(DataError, match="no folder and no zip"):
        load(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(DataError, match="must be a folder or a zip of one"):
        load(tmp_path / "text.zip")


def test_classes_come_in_the_order_of_a_file_and_may_be_some_of_the_models(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 1, "val": 1}, ("n03", "n01"))
    classes = tmp_path / "classes.txt"
    classes.write_text("n05\tcow\nn03\tant\nn01\nn09\tbee\n\n")
    task = load(folder, size=8, classes=classes)
    assert task.labels == ("cow", "ant", "n01", "bee")
    assert sorted(int(task.heldout[index][1]) for index in range(2)) == [1, 2]
    assert task.loss is not None
    assert float(task.loss(torch.eye(4)[[2, 1]] * 99, torch.tensor([2, 1]))) == pytest.approx(0)
    metric = task.metric()
    metric.update(torch.eye(4)[[2, 3]], torch.tensor([2, 1]))
    assert float(metric.compute()) == 0.5
    for text, message in [
        ("n03\nn05\n", r"does not name 'n01' \(1 such folders\); its first line is 'n03'"),
        ("n03\n\nn01\n", "line 2 is empty"),
        ("n03\nn01\nn03\n", "'n03' stands there twice"),
        ("\n", "is empty"),
    ]:
        classes.write_text(text)
        with pytest.raises(DataError, match=message):
            load(folder, size=8, classes=classes)
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        load(folder, size=8, classes=tmp_path / "none.txt")


def test_a_zip_may_hold_one_folder_around_everything_and_hidden_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 1, "test": 1})
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            name = file.relative_to(folder).as_posix()
            archive.write(file, f"data set/{name}")
            archive.writestr(f"__MACOSX/data set/{name}", b"nothing")
            archive.writestr(f"data set/{Path(name).parent}/._{file.name}", b"nothing")
    zipped, plain = load(tmp_path / "images.zip", size=8), load(folder, size=8)
    assert zipped.labels == plain.labels == ("ant", "bee")
    assert zipped.heldout[1][0].equal(plain.heldout[1][0])


def test_images_that_preprocessing_cannot_take_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", {"train": 1, "test": 1})
    with pytest.raises(DataError, match=r"\d\.png is \d+x\d+, smaller than the crop 64x64; .*data\.resize"):
        load(folder, crop=64)
    with pytest.raises(ConfigError, match=r"size \(8x8\) and resize \(9\) exclude each other"):
        load(folder, size=8, resize=9)
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(folder / "test" / "ant" / "0.png")
    with pytest.raises(DataError, match=r"test/ant/0\.png has more than 8 bits a pixel"):
        load(folder, size=8)


@pytest.mark.parametrize("key", ["resize", "crop", "size"])
def test_keys_of_folders_are_refused_for_other_sources(key: str, tmp_path: Path) -> None:
    section = ClassificationData.model_validate({"source": "digits", key: 8})
    with pytest.raises(ConfigError, match=rf"data\.{key} is for source = \"image-folder\" only.*'digits'"):
        CLASSIFICATION.load(section, seed=0, cache=tmp_path)


def test_image_data_may_be_in_memory_or_not(tmp_path: Path) -> None:
    data = image_folder(make_folder(tmp_path / "images", {"train": 2, "test": 1}), Preprocessing(size=(8, 8)))
    assert isinstance(data.train_images, torch.Tensor)
    with pytest.raises(DataError, match="one shape"):
        ImageData(
            data.train_images[:, :, :4], data.train_targets, data.heldout_images, data.heldout_targets, ("a", "b")
        )
