"""Sources of images, their batching and the classification task."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from sekron_edge.data import (
    AugmentedImages,
    Preprocessing,
    classification,
    collate,
    digits,
    fashion_mnist,
    image_folder,
    load_source,
)
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization

PLAIN = Normalization((0.0,), (1.0,))


def make_folder(path: Path) -> Path:
    for split in ("train", "test"):
        for label, value in (("ant", 0), ("bee", 255)):
            folder = path / split / label
            folder.mkdir(parents=True)
            for index in range(2):
                pixels = np.full((6, 5, 3), value, np.uint8)
                pixels[-1, -1] = (index, split == "test", 100)  # no image is a copy
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return path


def test_digits_split_is_a_function_of_the_seed() -> None:
    a, b, c = digits(), digits(), digits(seed=1)
    assert a.train_images.shape == (1438, 1, 8, 8)
    assert len(a.heldout_images) == 359
    every = torch.arange(359)
    assert torch.equal(a.heldout_images[every], b.heldout_images[every])
    assert not torch.equal(a.heldout_images[every], c.heldout_images[every])


def test_fashion_mnist_absent_or_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sudo apt-get install dataset-fashion-mnist"):
        fashion_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="gzip"):
        fashion_mnist(tmp_path)


@pytest.mark.slow
def test_fashion_mnist_installed() -> None:
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    data = fashion_mnist()
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.heldout_targets.bincount().tolist() == [1000] * 10


def test_folder_zip_and_cache_agree(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    for path in (folder, tmp_path / "images.zip"):
        for _ in range(2):
            data = image_folder(path, cache=tmp_path / "cache")
            assert data.labels == ("ant", "bee")
            assert data.train_images.shape == (4, 3, 6, 5)
            assert data.train_images[torch.arange(4)][:, 0, 0, 0].tolist() == [0, 0, 255, 255]
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    assert image_folder(folder, Preprocessing(size=(4, 4))).train_images.shape == (4, 3, 4, 4)


def test_broken_image_missing_class_and_odd_size_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    bad = folder / "train" / "bee" / "1.png"
    Image.fromarray(np.zeros((7, 7, 3), np.uint8)).save(bad)
    with pytest.raises(DataError, match=r"bee/1\.png is 7x7"):
        image_folder(folder)
    bad.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train/bee/1\.png"):
        image_folder(folder)
    for file in (folder / "test" / "ant").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="ant"):
        image_folder(folder)


def test_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="'cifar'"):
        load_source("cifar")


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_shift_and_flip_move_pixels_and_follow_the_global_seed(padding: Literal["zero", "reflect"]) -> None:
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).repeat(64, 1, 1, 1)
    data = AugmentedImages(image, torch.zeros(64), PLAIN, shift=1, flip=True, padding=padding)
    torch.manual_seed(0)
    first, _ = data.__getitems__(range(64))
    torch.manual_seed(0)
    assert torch.equal(first, data.__getitems__(range(64))[0])
    mode = {"zero": "constant", "reflect": "reflect"}[padding]
    wide = torch.nn.functional.pad(image[:1].float(), (1, 1, 1, 1), mode=mode)[0, 0]
    windows = [wide[y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
    windows += [window.flip(1) for window in windows]
    seen = {next(i for i, w in enumerate(windows) if torch.allclose(w / 255, one[0])) for one in first}
    assert len(seen) > 9


def test_collate_takes_batches_and_samples() -> None:
    data = classification(digits()).heldout
    assert isinstance(data, AugmentedImages)
    whole = collate(data.__getitems__([3, 5]))
    single = collate([data[3], data[5]])
    assert all(torch.equal(a, b) for a, b in zip(whole, single, strict=True))


def test_calibration_is_balanced_training_data() -> None:
    data = digits()
    task = classification(data, augment_shift=2, calibration_samples=100)
    calibration = task.calibration
    assert isinstance(calibration, AugmentedImages)
    inputs, targets = calibration.__getitems__(range(100))
    assert targets.bincount().tolist() == [10] * 10
    assert torch.equal(inputs, calibration.__getitems__(range(100))[0])
    scores = torch.randn(4, 10)
    assert float(task.distillation(scores, scores)) == pytest.approx(0, abs=1e-6)
    assert float(task.distillation(scores, -scores)) > 0
    # Plans are judged by the classes' own probabilities, students are taught by softened ones.
    plain = torch.nn.functional.kl_div(
        scores.log_softmax(1), (-scores).log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert task.divergence is not None
    assert float(task.divergence(scores, -scores)) == pytest.approx(float(plain), rel=1e-5)
