"""Numbers to predict: from CSV files beside images, or arrays; keypoints where preprocessing puts them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sekron_edge.data import RegressionData, keypoints, regression
from sekron_edge.data._regression_data import REGRESSION
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Task

HEADER = "file,x,y,left\n"


def spots(path: Path, *, train: int = 6, test: int = 4, size: tuple[int, int] = (24, 36)) -> Path:
    """A folder of images with one bright spot each; the CSV files hold its centre, and a word."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        (path / split / "images").mkdir(parents=True)
        rows = []
        for number in range(count):
            y, x = random.integers(6, size[0] - 6), random.integers(8, size[1] - 8)
            pixels = np.zeros((*size, 3), np.uint8)
            pixels[y - 2 : y + 2, x - 2 : x + 2] = 255
            Image.fromarray(pixels).save(path / split / "images" / f"{number}.png")
            rows.append(f"images/{number}.png,{x},{y},{'yes' if x < size[1] / 2 else 'no'}\n")
        (path / split / "targets.csv").write_text(HEADER + "".join(rows))
    return path


def load(path: Path, **keys: Any) -> Task:
    section = RegressionData.model_validate({"path": path, **keys})
    return REGRESSION.load(section, seed=0, cache=path.parent / "cache")


def centre(image: torch.Tensor) -> torch.Tensor:
    """Where the bright spot is, in pixels: x and y."""
    light = image.mean(0)
    ys, xs = (torch.arange(side) + 0.5 for side in light.shape)
    return torch.stack([(light.sum(0) * xs).sum(), (light.sum(1) * ys).sum()]) / light.sum()


@pytest.mark.parametrize(
    "keys", [{}, {"size": (20, 24)}, {"resize": 30, "crop": (28, 32)}, {"size": (12, 36), "crop": (10, 30)}]
)
@pytest.mark.parametrize("coordinates", ["pixels", "shares"])
def test_keypoints_are_where_preprocessing_puts_them(tmp_path: Path, keys: dict[str, Any], coordinates: str) -> None:
    task = load(spots(tmp_path / "spots"), columns=("x", "y"), keypoints=coordinates, **keys)
    for split, count in ((task.train, 6), (task.heldout, 4)):
        assert len(split) == count  # type: ignore[arg-type]
        for index in range(count):
            image, point = split[index]
            side = torch.tensor([image.shape[2], image.shape[1]]) if coordinates == "shares" else torch.ones(2)
            assert (point * side - centre(image)).abs().max() < 0.25
    assert task.metric_unit == "%"


def test_values_are_those_of_the_csv_in_a_zip_with_one_file_for_all(tmp_path: Path) -> None:
    folder = spots(tmp_path / "spots")
    rows = []
    for split in ("train", "test"):
        file = folder / split / "targets.csv"
        rows += [f"{split}/{line}" for line in file.read_text().splitlines()[1:]]
        file.unlink()
    with zipfile.ZipFile(tmp_path / "spots.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, Path("spots") / file.relative_to(folder))
        archive.writestr("spots/all.csv", HEADER + "\n".join(rows))
    whole = load(tmp_path / "spots.zip", targets="all.csv", columns=["y"], mean=(0.5,) * 3, std=(0.25,) * 3, unit="px")
    task = load(spots(tmp_path / "again"), columns=["y"], calibration_samples=2)
    assert (len(task.calibration), whole.metric_unit) == (2, "px")  # type: ignore[arg-type]
    for index in range(6):
        assert whole.train[index][1].shape == (1,)
        torch.testing.assert_close(whole.train[index][0], (task.train[index][0] - 0.5) / 0.25)
        assert whole.train[index][1].equal(task.train[index][1])


def test_without_training_samples_some_are_set_aside(tmp_path: Path) -> None:
    folder = spots(tmp_path / "spots") / "test"
    task = load(folder, columns=["x"], calibration_samples=1)
    assert [len(split) for split in (task.train, task.calibration, task.heldout)] == [1, 1, 3]  # type: ignore[arg-type]


def test_errors_count_in_units_of_each_values_spread(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(64, 3)) * [1, 1000, 0] + [0, 5, 7]
    inputs = random.normal(size=(64, 5))
    arrays: dict[str, Any] = {"train_inputs": inputs, "train_targets": values}
    np.savez(tmp_path / "data.npz", **arrays, heldout_inputs=inputs[:8], heldout_targets=values[:8])
    task = load(tmp_path / "data.npz", unit="V")
    targets = torch.stack([task.train[index][1] for index in range(64)])
    assert task.loss is not None
    for column, loss in ((0, 1 / 3), (1, 1 / 3), (2, 0.0)):
        outputs = targets.clone()
        outputs[:, column] = outputs[:, column].mean()
        for measure in (task.loss, task.distillation):
            assert float(measure({"out": outputs}, targets)) == pytest.approx(loss, abs=1e-4)
    metric = task.metric()
    metric.update(targets + torch.tensor([0.5, 1.0, 0.0]), targets)
    assert float(metric.compute()) == pytest.approx(0.5, abs=1e-4)
    assert not task.higher_is_better
    assert task.lost(3.0, 2.0) == 1.0
    with pytest.raises(
        ConfigError, match=r"3 values for each sample, so a model must give \(batch, 3\); got \(64, 2\)"
    ):
        task.loss(targets[:, :2], targets)
    huber = load(tmp_path / "data.npz", loss="smooth-l1").loss
    assert huber is not None
    far = targets + torch.tensor([100.0, 0, 0])
    assert float(huber(far, targets)) < 0.1 * float(task.loss(far, targets))


@given(
    st.tuples(st.integers(2, 50), st.integers(2, 50)),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
    st.floats(0.01, 0.5),
)
def test_distances_are_the_same_in_pixels_and_in_shares(
    size: tuple[int, int], points: list[tuple[float, float]], away: float
) -> None:
    """Every point is moved to the right by a share of the width."""
    targets = torch.tensor(points, dtype=torch.float64).flatten()[None]
    outputs = targets + torch.tensor([away, 0.0], dtype=torch.float64).repeat(len(points))
    side = torch.tensor([size[1], size[0]], dtype=torch.float64).repeat(len(points))
    expected = away * size[1] / float(np.hypot(*size))
    samples: Any = [(torch.zeros(3, *size), targets[0])]
    for coordinates, scale in (("shares", 1), ("pixels", side)):
        options: dict[str, Any] = {"size": size, "coordinates": coordinates}
        near = keypoints(samples, samples, samples, **options).metric()
        near.update(outputs * scale, targets * scale)
        assert float(near.compute()) == pytest.approx(expected)
        for within, found in ((expected * 1.01, 1.0), (expected * 0.99, 0.0)):
            task = keypoints(samples, samples, samples, pck=within, **options)
            share = task.metric()
            share.update(outputs * scale, targets * scale)
            assert float(share.compute()) == found
            assert task.higher_is_better


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("images/0.png,1,2,a\nimages/1.png,1\n", r"train/targets\.csv, line 3, must have 4 fields, .*; it has 2"),
        ("images/0.png,1,nan,a\n", r"train/targets\.csv, line 2, must have finite numbers; field 3 is 'nan'"),
        ("images/0.png,1,,a\n", r"line 2, must have finite numbers; field 3 is ''"),
        ("images/9.png,1,2,a\n", r"line 2, names the image train/images/9\.png, which is not in .*spots"),
        ("images/0.png,1,2,a\nimages/0.png,1,2,a\n", r"line 3, names train/images/0\.png again"),
        ("images/0.png,1,2,'a\x00\n", None),
        ("targets.csv,1,2,a\n", r"train/targets\.csv is not a readable image"),
    ],
)
def test_a_wrong_row_is_named_with_its_file_and_line(tmp_path: Path, rows: str, message: str | None) -> None:
    folder = spots(tmp_path / "spots")
    (folder / "train" / "targets.csv").write_text(HEADER + rows)
    if message is None:  # a column that is not taken may hold anything
        assert len(load(folder, columns=["x", "y"]).train) == 1  # type: ignore[arg-type]
        return
    with pytest.raises(DataError, match=message):
        load(folder, columns=["x", "y"]).train[0]


@pytest.mark.parametrize(
    ("csv", "keys", "message"),
    [
        ("", {}, r"test/targets\.csv must have a row for each image; it is empty"),
        (HEADER, {"columns": ["z"]}, r"line 1, must name the column 'z'; its columns are x, y, left"),
        ("images/0.png,1,2\n", {"columns": ["x"]}, r"line 1, must name the columns.*; it has numbers"),
        ("images/0.png;1;2\n", {}, r"line 1, must have a file's name and its values, with commas between"),
        ("images/0.png,1,2,3\n", {}, r"train/targets\.csv, line 1, must have 3 values, .*; it has 2"),
        ("images/0.png,a,2\n", {}, r"line 1, must have finite numbers; field 2 is 'a'"),
        ("images/0.png,1\n", {"targets": "labels.csv"}, r"must hold labels\.csv, .* given by data\.targets"),
    ],
)
def test_a_wrong_file_of_targets_is_named(tmp_path: Path, csv: str, keys: dict[str, Any], message: str) -> None:
    folder = spots(tmp_path / "spots")
    (folder / "test" / "targets.csv").write_text(csv)
    (folder / "train" / "targets.csv").write_text("images/0.png,1,2\n")
    with pytest.raises(DataError, match=message):
        load(folder, **keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"columns": ["x"], "keypoints": "pixels"}, r"x and y in turn, an even number of values; the data have 1"),
        ({"columns": ["x"], "pck": 0.1}, r"data\.pck is for keypoints"),
        ({"columns": ["x", "y"], "keypoints": "pixels", "augment_flip": True}, r"leave values as they are"),
        ({"columns": ["x", "y"], "keypoints": "pixels", "unit": "mm"}, r"data\.unit is of values"),
        ({"columns": ["x", "y"], "keypoints": "pixels", "crop": (30, 30)}, r"0\.png is 36x24, smaller than the crop"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        load(spots(tmp_path / "spots"), **keys)


def test_images_in_arrays_are_those_in_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 10), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", inputs=images, targets=np.full((6, 2, 2), 4.0))
    task = load(tmp_path / "data.npz", calibration_samples=2, keypoints="shares", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert [len(split) for split in (task.train, task.heldout)] == [2, 4]  # type: ignore[arg-type]
    image, points = task.heldout[0]
    assert image.shape == (3, 8, 10)
    assert -1 <= float(image.min()) < 0 < float(image.max()) <= 1
    assert points.tolist() == pytest.approx([0.4, 0.5, 0.4, 0.5])


@pytest.mark.parametrize(
    ("arrays", "keys", "message"),
    [
        ({"images": np.zeros((2, 3))}, {}, r"must hold the arrays .*, or inputs and targets; it holds images"),
        ({"inputs": np.zeros((2, 3)), "targets": np.zeros(3)}, {}, r"one row for each sample, .*; they have 2 and 3"),
        ({"inputs": np.zeros((2, 3)), "targets": np.array([0, np.nan])}, {}, r"targets in .* must be finite; row 1"),
        ({"inputs": np.array([["a"], ["b"]]), "targets": np.zeros(2)}, {}, r"inputs in .* must hold numbers"),
        ({"inputs": np.array([{}, {}]), "targets": np.zeros(2)}, {}, r"cannot be read as an \.npz of numbers"),
        ({"inputs": np.zeros((2, 3), np.uint8), "targets": np.zeros(2)}, {}, r"uint8 must be images \(N, C, H, W\)"),
        ({"inputs": np.zeros((2, 3)), "targets": np.zeros(2)}, {"size": 8}, r"data\.size is for a folder of images"),
        ({"inputs": np.zeros((2, 3)), "targets": np.zeros(2)}, {"augment_flip": True}, r"are for images, uint8"),
        ({"inputs": np.zeros((2, 3)), "targets": np.zeros((2, 2))}, {"keypoints": "pixels"}, r"keypoints need images"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_arrays_says_which(
    tmp_path: Path, arrays: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises((ConfigError, DataError), match=message):
        load(tmp_path / "data.npz", **keys)


def test_a_scale_has_a_number_for_each_value() -> None:
    samples: Any = [(torch.zeros(2), torch.zeros(2))]
    with pytest.raises(ConfigError, match="scale must have a number for each of 2 values; it has 3"):
        regression(samples, samples, samples, scale=(1, 2, 3)).distillation(torch.zeros(1, 2), torch.zeros(1, 2))
