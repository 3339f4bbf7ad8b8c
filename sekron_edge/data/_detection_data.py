"""Images with boxes in COCO's JSON, from a job's ``[data]``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge import references
from sekron_edge.data._coco import Boxes, read_coco
from sekron_edge.data._detection import detection
from sekron_edge.data._file_tensors import FileTensors, StackedImages
from sekron_edge.data._files import FileTree
from sekron_edge.data._mean_precision import require_pycocotools
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._preprocessing import SUFFIXES, Preprocessing, size_of
from sekron_edge.data._section import PixelSection, SplitSection
from sekron_edge.data._set_aside import drawn, set_aside
from sekron_edge.data._skipped import skipped
from sekron_edge.data._split_files import other_kind, split_files
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Samples, Task
from sekron_edge.task_kinds import ConfigReference, TaskKind


class DetectionData(SplitSection, PixelSection):
    """Images and their boxes, in COCO's JSON.

    Attributes:
        annotations: The JSON of each split; ``{split}`` is the split's folder, from which the JSON names its images.
        decode: Makes boxes of the model's outputs, see `detection`.
        loss: Of the model's outputs and the boxes; without it the model is only distilled.
    """

    annotations: str = "{split}/annotations.json"
    decode: ConfigReference
    loss: ConfigReference | None = None
    calibration_samples: int = Field(default=256, ge=1)


class BoxedImages(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Normalised images with their boxes where preprocessing puts them, read when they are needed.

    Args:
        images: One image each.
        boxes: In pixels of the files, in the images' order.
        preprocessing: Of the images.
        normalization: Applied to pixels in [0, 1].
    """

    def __init__(
        self, images: FileTensors, boxes: Sequence[Boxes], preprocessing: Preprocessing, normalization: Normalization
    ) -> None:
        self._images, self._boxes, self._preprocessing = StackedImages(images), boxes, preprocessing
        self._sizes = FileTensors(images.tree, images.names, lambda content, name: torch.tensor(size_of(content, name)))
        self._mean = torch.tensor(normalization.mean).view(-1, 1, 1)
        self._std = torch.tensor(normalization.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return float32 ``(C, H, W)``, and boxes without those that were cut off."""
        image = self._images[torch.tensor([index])][0]
        height, width = (int(value) for value in self._sizes[index])
        place = self._preprocessing.placement(height, width, self._sizes.shown(index))
        resized = torch.tensor([place.width / width, place.height / height]).repeat(2)
        corner = torch.tensor([float(place.left), float(place.top)]).repeat(2)
        boxes = self._boxes[index].boxes * resized - corner
        boxes = boxes.clamp(min=torch.zeros(4), max=torch.tensor([*image.shape[:0:-1]] * 2))
        left = (boxes[:, 2:] > boxes[:, :2]).all(1)
        targets = {"boxes": boxes, "labels": self._boxes[index].labels, "crowd": self._boxes[index].crowd}
        return (image.float() / 255 - self._mean) / self._std, {key: value[left] for key, value in targets.items()}


def _load(section: DetectionData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    require_pycocotools()
    decode = _function(section.decode, "a decoder of boxes")
    loss = None if section.loss is None else _function(section.loss, "a loss")
    tree, how, normalization = FileTree(section.path), section.preprocessing(), section.normalization()
    channels = 3 if section.colours == "rgb" else 1

    def samples(listed: Sequence[tuple[str, Boxes]]) -> Samples:
        return BoxedImages(
            FileTensors(tree, [name for name, _ in listed], how.pixels),
            [boxes for _, boxes in listed],
            how,
            normalization or Normalization((0.0,) * channels, (1.0,) * channels),
        )

    train, heldout, notes = _splits(tree, section, seed)
    if not any(len(boxes.labels) for _, boxes in heldout):
        raise DataError(f"held-out images in {section.path} must have boxes to judge a model by; they have none")
    chosen, _ = drawn(len(train), section.calibration_samples, seed)
    task = detection(
        samples(train),
        samples([train[index] for index in chosen]),
        samples(heldout),
        decode=decode,
        loss=loss,
        normalization=normalization,
    )
    return replace(task, notes=notes)


DETECTION = TaskKind("detection", DetectionData, _load)

_Listed = list[tuple[str, Boxes]]


def _splits(tree: FileTree, section: DetectionData, seed: int) -> tuple[_Listed, _Listed, tuple[str, ...]]:
    """Return the images of training and of held-out data with their boxes, and notes of what was read.

    Some held-out ones are set aside if none train.
    """
    found = split_files(
        tree, train=section.train, heldout=section.heldout, why_not=other_kind(SUFFIXES), form="images",
        top=(PurePosixPath(section.annotations).parts[0],),
    )  # fmt: skip
    jsons = [_json(tree, section, files[0]) if files else None for files in (found.train, found.heldout)]
    train, heldout = ([] if json is None else sorted(read_coco(tree, *json).items()) for json in jsons)
    listed = {name for part in (train, heldout) for name, _ in part}
    others = [name for part in (found.train, found.heldout) for _, name in part if name not in listed]
    if not train:
        count = set_aside(len(heldout), section.calibration_samples, tree.path)
        kept, left = drawn(len(heldout), count, seed)
        train, heldout = [heldout[index] for index in kept], [heldout[index] for index in left]
    notes = reading_notes(
        tree,
        "images with boxes",
        *([name for name, _ in part] for part in (train, heldout)),
        skipped=(*skipped({"images that the JSON does not list": others}), *found.skipped),
        used=[json[0] for json in jsons if json is not None],
        set_aside=not found.train,
    )
    return train, heldout, notes


def _json(tree: FileTree, section: DetectionData, file: tuple[str, str]) -> tuple[str, str]:
    """Return the JSON file of the split that a file is in, and the folder from which it names images."""
    inside, name = file
    folder = PurePosixPath(name.removesuffix(inside))
    json = (folder.parent / section.annotations.replace("{split}", folder.name)).as_posix()
    if json not in tree.names:
        raise DataError(
            f"{tree.path} must hold {json} with the boxes of {folder}/; it does not. data.annotations names the file, "
            "with {split} for the split's folder"
        )
    prefix = "" if folder == PurePosixPath() else f"{folder.as_posix()}/"
    return json, prefix


def _function(reference: str, what: str) -> Callable[..., Any]:
    """Return a function of the user's whose errors are shown as theirs."""
    function = references.load(reference, what)
    if not callable(function):
        raise ConfigError(f"{reference} is a {type(function).__name__}, not a function that is {what}")

    def called(*arguments: Any) -> Any:
        with references.errors_in(reference):
            return function(*arguments)

    return called
