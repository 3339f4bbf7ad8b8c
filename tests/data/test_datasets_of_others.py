"""Data sets of others: torchvision's tuples, Hugging Face's dicts, any map-style data set, Lightning's DataModules."""

from __future__ import annotations

from typing import Any, ClassVar

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from sekron_edge.data import Preprocessing, Rows, batch_of, data_module, labelled, splits, unlabelled
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization
from sekron_edge.training import evaluate


class Pictures(Dataset[Any]):
    """As torchvision's data sets: a Pillow image and a class; counts what is read."""

    def __init__(self, count: int = 20) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.read.append(index)
        return Image.new("RGB", (12, 8), (10 * index, 0, 255)), index % 3


class Table(list[dict[str, Any]]):
    """As Hugging Face's data sets: rows are dicts, and several are read at once."""

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self[index] for index in indices]


def test_images_are_preprocessed_when_they_are_read() -> None:
    pictures = Pictures()
    normalization = Normalization((0.5, 0.0, 0.0), (0.5, 1.0, 1.0))
    rows = Rows(pictures, preprocessing=Preprocessing(resize=4, crop=(4, 5)), normalization=normalization)
    parts = splits(rows, calibration_samples=3)
    assert [len(part) for part in parts] == [16, 3, 4]  # type: ignore[arg-type]
    assert pictures.read == []
    inputs, targets = batch_of(rows, [4, 5])
    assert pictures.read == [4, 5]
    assert inputs.shape == (2, 3, 4, 5)
    torch.testing.assert_close(inputs[:, :, 0, 0], torch.tensor([[80 / 255 - 1, 0, 1], [100 / 255 - 1, 0, 1]]))
    assert targets.tolist() == [1, 2]


def test_no_sample_is_in_training_and_held_out_and_the_seed_decides() -> None:
    def drawn(seed: int) -> list[list[int]]:
        parts: Any = splits(range(100), calibration_samples=7, seed=seed)
        return [[part[index] for index in range(len(part))] for part in parts]

    train, calibration, heldout = map(set, drawn(0))
    assert train | heldout == set(range(100))
    assert not train & heldout
    assert calibration < train
    assert drawn(1) == drawn(1) != drawn(0)
    with pytest.raises(DataError, match="at least 2 samples"):
        splits([1])


def test_rows_that_are_dicts_become_a_task() -> None:
    random = np.random.default_rng(0)
    table = Table(
        {"pixels": random.random((3, 4), dtype=np.float32), "mask": [1, 0], "kind": int(index % 2), "name": "a"}
        for index in range(10)
    )
    task = labelled(*splits(Rows(table, inputs="pixels", target="kind")), labels=("even", "odd"))
    assert 0 <= evaluate(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), task) <= 1
    several = Rows(table, inputs=lambda row: {"x": row["pixels"], "mask": row["mask"]}, target=None)
    batch = batch_of(unlabelled(several).train, [0, 1, 2])
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "x": ((3, 3, 4), torch.float32), "mask": ((3, 2), torch.int64)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "picks", "message"),
    [
        (
            [{"image": 1, "label": 2}],
            {"inputs": "pixels"},
            r"row 0 has no 'pixels'; it has image, label\. ",
        ),
        ([(1,)], {}, r"row 0 has no 1; it is a tuple of 1"),
        ([3.5], {}, r"row 0 has no 0; it is a float"),
        ([("word", 1)], {}, r"inputs of row 0 must be an image, an array or numbers; got a str"),
        ([(1, [[1, 2], [3]])], {}, r"the target of row 0 must be numbers of one shape"),
        ([({"left": None}, 1)], {}, r"left in inputs of row 0 must be an image, .*; got a NoneType"),
    ],
)
def test_a_row_that_is_no_sample_is_named(rows: Any, picks: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Rows(rows, **picks)[0]


def test_a_normalization_has_a_value_for_each_channel() -> None:
    with pytest.raises(ConfigError, match="each of 3 channels; got 1 and 1"):
        Rows(Pictures(), normalization=Normalization((0.5,), (0.5,)))[0]


def numbered(first: int, count: int) -> TensorDataset:
    values = torch.arange(first, first + count, dtype=torch.float32)
    return TensorDataset(values[:, None], values)


class Module(lightning.LightningDataModule):
    """Three splits, made when they are set up."""

    sizes: ClassVar[dict[str, int]] = {"fit": 20, "validate": 8, "test": 6}

    def __init__(self, collate: Any = default_collate) -> None:
        super().__init__()
        self.collate, self.made, self.is_prepared = collate, dict[str, TensorDataset](), False

    def prepare_data(self) -> None:
        self.is_prepared = True

    def setup(self, stage: str) -> None:
        assert self.is_prepared
        first = 100 * list(self.sizes).index(stage)
        self.made[stage] = numbered(first, self.sizes[stage])

    def loader(self, stage: str) -> Any:
        return DataLoader(self.made[stage], batch_size=4, shuffle=stage == "fit", collate_fn=self.collate)

    def train_dataloader(self) -> Any:
        return self.loader("fit")

    def val_dataloader(self) -> Any:
        return self.loader("validate")


class WithTest(Module):
    """With a test split too."""

    def test_dataloader(self) -> Any:
        return self.loader("test")


def values(samples: Any) -> list[float]:
    return sorted(float(samples[index][1]) for index in range(len(samples)))


def test_the_splits_of_a_data_module_keep_their_meaning() -> None:
    train, calibration, heldout = data_module(WithTest(), calibration_samples=5)
    assert (values(train), values(heldout)) == ([*map(float, range(20))], [*map(float, range(200, 206))])
    assert len(values(calibration)) == 5
    assert set(values(calibration)) <= set(map(float, range(100, 108)))
    train, calibration, heldout = data_module(Module(), calibration_samples=5)
    assert values(heldout) == [*map(float, range(100, 108))]
    assert set(values(calibration)) < set(values(train))
    made = lightning.LightningDataModule.from_datasets(numbered(0, 4), test_dataset=numbered(9, 2))
    assert values(data_module(made).heldout) == [9, 10]


def as_dict(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    inputs, targets = default_collate(samples)
    return {"x": inputs + 0.5, "y": targets, "length": torch.tensor(len(samples))}


@pytest.mark.parametrize("target", ["y", None])
def test_a_loaders_own_batches_are_kept(target: str | None) -> None:
    parts = data_module(WithTest(as_dict), inputs="x", target=target)
    batch = batch_of(parts.heldout, [1, 3])
    inputs, sample = (batch, parts.heldout[1]) if target is None else (batch[0], parts.heldout[1][0])
    assert inputs.tolist() == [[201.5], [203.5]]
    assert sample.tolist() == [201.5]
    if target is not None:
        assert batch[1].tolist() == [201, 203]
    with pytest.raises(DataError, match=r"a batch has no 'z'; it has x, y, length"):
        batch_of(data_module(WithTest(as_dict), inputs="z").heldout, [0])


class OnlyTrain(lightning.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(numbered(0, 4))


class Several(OnlyTrain):
    def val_dataloader(self) -> Any:
        return [DataLoader(numbered(0, 4))]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from range(3)


class Streamed(OnlyTrain):
    def val_dataloader(self) -> Any:
        return DataLoader(Stream())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (object(), r"must be a LightningDataModule; got object"),
        (OnlyTrain(), r"OnlyTrain must have train_dataloader, and test_dataloader .*; it has train_dataloader"),
        (Several(), r"val_dataloader must give one torch\.utils\.data\.DataLoader; got list"),
        (Streamed(), r"the val samples must have indices; Stream only gives one after another"),
    ],
)
def test_a_module_without_the_samples_of_a_task_is_refused(module: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data_module(module)
