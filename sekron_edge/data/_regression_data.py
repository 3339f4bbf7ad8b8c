"""Images or arrays with numbers to predict, from a job's ``[data]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import TensorDataset

from sekron_edge.data._arrays import read_arrays
from sekron_edge.data._file_tensors import FileTensors, StackedImages
from sekron_edge.data._files import FileTree
from sekron_edge.data._images import AugmentedImages, Images, Targets
from sekron_edge.data._keypoints import Coordinates, Keypoints, in_coordinates, paired
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._preprocessing import SUFFIXES
from sekron_edge.data._regression import Loss, keypoints, regression
from sekron_edge.data._section import PixelSection, SplitSection
from sekron_edge.data._set_aside import drawn, set_aside
from sekron_edge.data._skipped import OTHER_KIND, skipped
from sekron_edge.data._split_files import other_kind, split_files
from sekron_edge.data._targets import ImageTargets
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Samples, Task
from sekron_edge.task_kinds import TaskKind

_ARRAYS = ".npz"


class RegressionData(SplitSection, PixelSection):
    """Images and their values: ``targets.csv`` beside the images, or one for all; or arrays in an ``.npz``.

    Attributes:
        targets: Name of the CSV files; a row is an image's file, from the CSV's own folder, and its values.
        columns: The columns to take, in the order of the model's outputs; by default all after the first.
        keypoints: The values are x and y of points in turn, in pixels of the file; this is what the model gives:
            ``pixels`` of its input, or ``shares`` of its width and height.
        pck: The metric is the share of keypoints that are at most this far away, a share of the image's diagonal; by
            default it is the mean distance.
        loss: Squared errors, or those of Huber (``smooth-l1``), which outliers move less.
        unit: Of the values, for reports.
        augment_shift: Largest random shift of training images, in pixels: their values stay the same.
        augment_flip: Whether training images are mirrored at random: their values stay the same.
    """

    targets: str = "targets.csv"
    columns: tuple[str, ...] | None = Field(default=None, min_length=1)
    keypoints: Coordinates | None = None
    pck: float | None = Field(default=None, gt=0)
    loss: Loss = "mse"
    unit: str = ""
    augment_shift: int = Field(default=0, ge=0)
    augment_flip: bool = False


def _load(section: RegressionData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    _require_keys_that_go_together(section)
    source = (_arrays if section.path.suffix == _ARRAYS else _files)(section)
    train, heldout = source.train, source.heldout
    if not source.train:
        count = set_aside(len(heldout), section.calibration_samples, section.path)
        kept, others = drawn(len(heldout), count, seed)
        train, heldout = [heldout[index] for index in kept], [heldout[index] for index in others]
    chosen, _ = drawn(len(train), section.calibration_samples, seed)
    splits = (
        source.samples(train, augmented=True),
        source.samples([train[index] for index in chosen]),
        source.samples(heldout),
    )
    return replace(_task(section, source, train, splits), notes=source.notes(train, heldout))


def _task(section: RegressionData, source: _Source, train: list[int], splits: tuple[Samples, Samples, Samples]) -> Task:
    normalization = section.normalization()
    if section.keypoints is None:
        spreads = source.values[train].std(0, correction=0)
        scale = torch.where(spreads > 0, spreads, torch.ones_like(spreads)).tolist()
        return regression(*splits, scale=scale, loss=section.loss, unit=section.unit, normalization=normalization)
    return keypoints(
        *splits,
        size=source.size(),
        coordinates=section.keypoints,
        pck=section.pck,
        loss=section.loss,
        normalization=normalization,
    )


REGRESSION = TaskKind("regression", RegressionData, _load)


def _require_keys_that_go_together(section: RegressionData) -> None:
    if section.keypoints is None and section.pck is not None:
        raise ConfigError("data.pck is for keypoints: give data.keypoints, or remove it")
    if section.keypoints is not None and (section.augment_shift or section.augment_flip):
        raise ConfigError(
            "data.augment_shift and data.augment_flip leave values as they are: remove them for keypoints"
        )
    if section.keypoints is not None and section.unit:
        raise ConfigError("data.unit is of values; distances of keypoints are shares of the diagonal: remove it")
    if section.path.suffix != _ARRAYS:
        return
    fields = type(section).model_fields
    for key in ("targets", "columns", "train", "heldout", "size", "resize", "crop", "interpolation", "colours"):
        if getattr(section, key) != fields[key].default:
            raise ConfigError(f"data.{key} is for a folder of images, or a zip of one; remove it for {section.path}")


@dataclass(frozen=True, eq=False)
class _Source:
    """All samples by their numbers.

    Attributes:
        train: Numbers of the training samples; empty where the data do not say.
        heldout: Numbers of the held-out ones.
        values: float32 ``(N, D)``, as they are in the data.
        samples: Makes a data set of some, at random changed if they are ``augmented``.
        size: Height and width of the images.
        notes: Describes what was read, for the numbers of training and of held-out samples.
    """

    train: list[int]
    heldout: list[int]
    values: Tensor
    samples: _MakeSamples
    size: Callable[[], tuple[int, int]]
    notes: Callable[[Sequence[int], Sequence[int]], tuple[str, ...]]


class _MakeSamples(Protocol):
    def __call__(self, chosen: Sequence[int], /, *, augmented: bool = False) -> Samples: ...


def _files(section: RegressionData) -> _Source:
    tree, how = FileTree(section.path), section.preprocessing()
    values = ImageTargets.read(tree, section.targets, section.columns).of
    splits = split_files(
        tree.only(values),
        train=section.train,
        heldout=section.heldout,
        why_not=lambda _: None,
        form=f"images that {section.targets} names",
    )
    names = [name for split in (splits.train, splits.heldout) for _, name in split]
    files, numbers = FileTensors(tree, names, how.pixels), torch.tensor([values[name] for name in names])

    def samples(chosen: Sequence[int], *, augmented: bool = False) -> Samples:
        images, targets = files.select(chosen), numbers[list(chosen)]
        placed = None if section.keypoints is None else Keypoints(paired(targets), images, how, section.keypoints)
        return _images(StackedImages(images), targets if placed is None else placed, section, augmented=augmented)

    def size() -> tuple[int, int]:
        height, width = files[0].shape[1:]
        return height, width

    def notes(train: Sequence[int], heldout: Sequence[int]) -> tuple[str, ...]:
        others = [name for name in tree.names if name not in values and PurePosixPath(name).name != section.targets]
        images = [name for name in others if is_image(name) is None]
        reasons = {"images that no row names": images, OTHER_KIND: set(others) - set(images)}
        return reading_notes(
            tree,
            "images with values",
            *([names[number] for number in part] for part in (train, heldout)),
            skipped=(*skipped(reasons), *splits.skipped),
            set_aside=not splits.train,
        )

    is_image = other_kind(SUFFIXES)
    everything = range(len(names))
    train, heldout = [*everything[: len(splits.train)]], [*everything[len(splits.train) :]]
    return _Source(train, heldout, numbers, samples, size, notes)


def _arrays(section: RegressionData) -> _Source:
    arrays = read_arrays(section.path)
    inputs, targets = arrays.inputs, arrays.targets
    are_images = inputs.dtype == torch.uint8 and inputs.ndim == 4
    if inputs.dtype == torch.uint8 and not are_images:
        raise DataError(
            f"inputs in {section.path} that are uint8 must be images (N, C, H, W); got {tuple(inputs.shape)}"
        )
    if not are_images and (section.normalization() or section.augment_shift or section.augment_flip):
        raise ConfigError(
            f"data.mean, data.std, data.augment_shift and data.augment_flip are for images, uint8 (N, C, H, W); inputs "
            f"in {section.path} are {inputs.dtype}"
        )

    def size() -> tuple[int, int]:
        if inputs.ndim != 4:
            raise DataError(f"keypoints need images (N, C, H, W); inputs in {section.path} are {tuple(inputs.shape)}")
        return inputs.shape[2], inputs.shape[3]

    if section.keypoints is not None:
        targets = in_coordinates(paired(targets), size(), section.keypoints)

    def samples(chosen: Sequence[int], *, augmented: bool = False) -> Samples:
        numbers = torch.tensor(chosen)
        if are_images:
            return _images(inputs[numbers], targets[numbers], section, augmented=augmented)
        return cast(Samples, TensorDataset(inputs[numbers], targets[numbers]))

    def notes(train: Sequence[int], heldout: Sequence[int]) -> tuple[str, ...]:
        return (f"{section.path}: {len(train):,} training and {len(heldout):,} held-out rows",)

    everything = range(len(inputs))
    return _Source([*everything[: arrays.train]], [*everything[arrays.train :]], arrays.targets, samples, size, notes)


def _images(images: Images, targets: Targets, section: RegressionData, *, augmented: bool) -> Samples:
    channels = images.shape[1]
    return AugmentedImages(
        images,
        targets,
        section.normalization() or Normalization((0.0,) * channels, (1.0,) * channels),
        shift=section.augment_shift if augmented else 0,
        flip=section.augment_flip and augmented,
    )
