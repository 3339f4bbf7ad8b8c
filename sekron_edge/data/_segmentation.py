"""The task of saying of each pixel which class it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sekron_edge.data._classes import Classes
from sekron_edge.data._file_tensors import FileTensors
from sekron_edge.data._files import FileTree
from sekron_edge.data._masks import MaskDecoding, MaskedImages
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._outputs import main_output, of_main_output
from sekron_edge.data._preprocessing import SUFFIXES
from sekron_edge.data._section import PixelSection, SplitSection
from sekron_edge.data._set_aside import drawn, set_aside
from sekron_edge.data._skipped import OTHER_KIND, skipped
from sekron_edge.data._split_files import HELDOUT_FOLDERS, TRAIN_FOLDERS, split_files
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Samples, Task
from sekron_edge.task_kinds import ConfigPath, TaskKind

if TYPE_CHECKING:
    import torchmetrics

_NAME = "segmentation"
_TEMPERATURE = 2.0

_Pairs = list[tuple[str, str]]


class SegmentationData(SplitSection, PixelSection):
    """Images and masks: ``train/images``, ``train/masks``, and the same in ``test``; or ``images/train`` and so on.

    Attributes:
        classes: Names of the classes in the order of the model's outputs, or a file with one on each line.
        images, masks: Names of the two folders. A mask has its image's name, with any suffix.
        mask_suffix: What stands after the image's name in a mask's, say ``_mask``.
        mask_values: Value of each class in the masks; by default 0, 1, 2 and so on.
        ignore_index: Value of pixels that do not count.
        augment_flip: Whether training images are mirrored at random.
    """

    classes: tuple[str, ...] | ConfigPath
    images: str = "images"
    masks: str = "masks"
    mask_suffix: str = ""
    mask_values: tuple[int, ...] | None = None
    ignore_index: int = Field(default=255, le=32_767)
    augment_flip: bool = False
    calibration_samples: int = Field(default=256, ge=1)


def segmentation(
    train: Samples,
    calibration: Samples,
    heldout: Samples,
    *,
    labels: tuple[str, ...],
    ignore_index: int = 255,
    normalization: Normalization | None = None,
) -> Task:
    """Make the task of saying of each pixel which class it is.

    A model gives ``(B, classes, h, w)``; with two classes also ``(B, 1, h, w)``, the second one's logit. Outputs of
    another size than the masks are enlarged for loss and metric. Of several outputs, the one named ``logits`` or
    ``out`` counts, else the first.

    Args:
        train: Samples ``(image, mask)``; masks are int64 ``(H, W)``.
        calibration: Training samples without augmentation.
        heldout: Samples for final figures.
        labels: Names of the classes.
        ignore_index: Value of pixels that do not count.
        normalization: Of the images; for the manifest.
    """
    if len(labels) < 2:
        raise ConfigError(f"segmentation needs at least two classes (background is one); got {list(labels)}")
    return Task(
        name=_NAME,
        train=train,
        calibration=calibration,
        heldout=heldout,
        loss=partial(_loss, ignore_index=ignore_index),
        distillation=partial(_divergence, temperature=_TEMPERATURE),
        metric=partial(_mean_iou, len(labels), ignore_index),
        metric_name="mIoU",
        labels=labels,
        normalization=normalization,
        divergence=partial(_divergence, temperature=1.0),
    )


def _load(section: SegmentationData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    named = section.classes
    labels = Classes.from_file(named).labels if isinstance(named, Path) else named
    if section.mask_values is not None and len(section.mask_values) != len(labels):
        raise ConfigError(
            f"data.mask_values must have one value for each of {len(labels)} classes; got {list(section.mask_values)}"
        )
    how = section.preprocessing()
    decoding = MaskDecoding(len(labels), how, section.ignore_index, section.mask_values)
    normalization = section.normalization()
    channels = 3 if section.colours == "rgb" else 1
    tree = FileTree(section.path)

    def samples(pairs: _Pairs, *, flip: bool = False) -> Samples:
        images = FileTensors(tree, [image for image, _ in pairs], how.pixels)
        masks = FileTensors(tree, [mask for _, mask in pairs], decoding.classes_of)
        return MaskedImages(
            images, masks, normalization or Normalization((0.0,) * channels, (1.0,) * channels), flip=flip
        )

    train, heldout, notes = _pairs(tree, section, seed)
    chosen, _ = drawn(len(train), section.calibration_samples, seed)
    task = segmentation(
        samples(train, flip=section.augment_flip),
        samples([train[index] for index in chosen]),
        samples(heldout),
        labels=labels,
        ignore_index=section.ignore_index,
        normalization=normalization,
    )
    return replace(task, notes=notes)


def _pairs(tree: FileTree, section: SegmentationData, seed: int) -> tuple[_Pairs, _Pairs, tuple[str, ...]]:
    """Return the names of training and of held-out images with their masks, and notes of what was read."""
    kinds = (section.images, section.masks)
    named = [name.lower() for name in (section.train, section.heldout) if name]
    folders = {*TRAIN_FOLDERS, *HELDOUT_FOLDERS, *named}

    def split_first(name: str) -> str:
        first, _, rest = name.partition("/")
        split, _, inside = rest.partition("/")
        return f"{split}/{first}/{inside}" if first in kinds and split.lower() in folders and inside else name

    def why_not(inside: str) -> str | None:
        name = PurePosixPath(inside)
        if name.suffix.lower() not in SUFFIXES:
            return OTHER_KIND
        return None if name.parts[0] in kinds and len(name.parts) > 1 else f"outside of {form}"

    form = f"{section.images}/ and {section.masks}/"
    splits = split_files(
        tree, train=section.train, heldout=section.heldout, why_not=why_not, form=form, top=kinds, moved=split_first
    )
    train, heldout = (_paired(files, tree, section) for files in (splits.train, splits.heldout))
    used = {name for pair in (*train, *heldout) for name in pair}
    alone = [name for _, name in (*splits.train, *splits.heldout) if name not in used]
    if not splits.train:
        count = set_aside(len(heldout), section.calibration_samples, tree.path)
        kept, others = drawn(len(heldout), count, seed)
        train, heldout = [heldout[index] for index in kept], [heldout[index] for index in others]
    notes = reading_notes(
        tree,
        "images",
        *([image for image, _ in part] for part in (train, heldout)),
        skipped=(*skipped({"masks without an image": alone}), *splits.skipped),
        set_aside=not splits.train,
    )
    return train, heldout, notes


def _paired(files: Iterable[tuple[str, str]], tree: FileTree, section: SegmentationData) -> _Pairs:
    """Return each image's file with that of its mask.

    Raises:
        DataError: If an image has no mask.
    """
    found: dict[str, dict[str, str]] = {section.images: {}, section.masks: {}}
    for inside, name in files:
        kind, _, rest = inside.partition("/")
        found[kind][PurePosixPath(rest).with_suffix("").as_posix()] = name
    images, masks = found[section.images], found[section.masks]
    if alone := [stem for stem in images if stem + section.mask_suffix not in masks]:
        raise DataError(
            f"every image must have a mask; {tree.shown(images[alone[0]])} has none called "
            f"{alone[0]}{section.mask_suffix} in {section.masks}/ ({len(alone)} of {len(images)} images have none). "
            "data.mask_suffix is what stands after the image's name, data.masks the folder"
        )
    return [(images[stem], masks[stem + section.mask_suffix]) for stem in sorted(images)]


def _scores(outputs: Any) -> Tensor:
    """Return ``(B, classes, h, w)``; one channel is the second class's logit against zero."""
    scores = main_output(outputs)
    if scores.ndim != 4:
        raise ConfigError(f"a model that segments must give (batch, classes, height, width); got {tuple(scores.shape)}")
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


def _like(scores: Tensor, masks: Tensor) -> Tensor:
    if scores.shape[2:] == masks.shape[1:]:
        return scores
    return F.interpolate(scores, size=masks.shape[1:], mode="bilinear", align_corners=False)


def _loss(outputs: Any, masks: Tensor, *, ignore_index: int) -> Tensor:
    scores = _like(_scores(outputs), masks)
    counted = (masks != ignore_index).sum().clamp(min=1)
    return F.cross_entropy(scores, masks, ignore_index=ignore_index, reduction="sum") / counted


def _divergence(outputs: Any, original: Any, *, temperature: float) -> Tensor:
    """Return the mean over all places of what the classes' distributions diverge by."""
    student, teacher = (F.log_softmax(_scores(each) / temperature, dim=1) for each in (outputs, original))
    places = student.shape[0] * student.shape[2] * student.shape[3]
    return temperature**2 * F.kl_div(student, teacher, reduction="sum", log_target=True) / places


def _mean_iou(classes: int, ignore_index: int) -> torchmetrics.Metric:
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(num_classes=classes, ignore_index=ignore_index)
    return of_main_output(metric, lambda outputs, masks: (_like(_scores(outputs), masks), masks))


SEGMENTATION = TaskKind(_NAME, SegmentationData, _load)
