"""The task of classifying images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from sekron_edge.data._image_folder import image_folder
from sekron_edge.data._images import AugmentedImages, ImageData, Images, selected
from sekron_edge.data._labelled import labelled
from sekron_edge.data._photographs import require_photographs_for_super_resolution
from sekron_edge.data._section import PixelSection
from sekron_edge.data._set_aside import balanced
from sekron_edge.data._sources import SOURCES, load_source
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Task
from sekron_edge.task_kinds import ConfigPath, TaskKind

if TYPE_CHECKING:
    pass

_NAME = "classification"

# Images that are read for their mean and std, where not all are in memory.
_COUNTED = 2048


# Keys in the order in which they were written down when the models in users' caches were trained.
_FIRST_KEYS = ("source", "path", "size", "mean", "std", "augment_shift", "augment_flip", "calibration_samples")


class ClassificationData(PixelSection):
    """Where images are, how they become a model's input, and how training images are changed at random.

    Attributes:
        source: Source of the images: ``digits``, ``fashion-mnist`` or ``image-folder``.
        path: Folder or zip of the data.
        train: Folder of the training images in it; by default ``train``.
        heldout: Folder of the held-out images; by default the first of ``test``, ``val`` and the like.
        classes: File with the folders' names in the order of the model's outputs, one on a line; by default they are
            in sorted order.
        augment_shift: Largest random shift of training images, in pixels.
        augment_flip: Whether training images are mirrored at random.
        calibration_samples: Number of training images for calibration.
    """

    source: str
    path: ConfigPath | None = None
    train: str | None = None
    heldout: str | None = None
    classes: ConfigPath | None = None
    augment_shift: int = Field(default=0, ge=0)
    augment_flip: bool = False
    calibration_samples: int = Field(default=512, ge=1)

    def cache_key(self) -> str:
        """Return the section as it was written when it had fewer keys, and the others where they are given."""
        values = {key: getattr(self, key) for key in _FIRST_KEYS}
        if self.size is not None and self.size[0] == self.size[1]:
            values["size"] = self.size[0]
        fields = type(self).model_fields
        values |= {key: value for key, value in self if key not in values and value != fields[key].default}
        return f"DataSection({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def classification(
    data: ImageData,
    *,
    normalization: Normalization | None = None,
    augment_shift: int = 0,
    augment_flip: bool = False,
    calibration_samples: int = 512,
    temperature: float = 4.0,
    seed: int = 0,
) -> Task:
    """Make the task of classifying images.

    Args:
        data: The images.
        normalization: That of the model; by default the training pixels' own mean and std.
        augment_shift: Largest random shift of training images, in pixels.
        augment_flip: Whether training images are mirrored at random.
        calibration_samples: Number of training images for calibration, taken from all classes as evenly as possible.
        temperature: Softens both models' outputs in distillation.
        seed: Chooses the calibration images.
    """
    if calibration_samples < 1:
        raise DataError(f"calibration_samples must be at least 1; got {calibration_samples}")
    if normalization is None:
        normalization = _pixel_statistics(data.train_images)
    chosen = balanced(data.train_targets, calibration_samples, seed)
    task = labelled(
        AugmentedImages(data.train_images, data.train_targets, normalization, shift=augment_shift, flip=augment_flip),
        AugmentedImages(selected(data.train_images, chosen), data.train_targets[chosen], normalization),
        AugmentedImages(data.heldout_images, data.heldout_targets, normalization),
        labels=data.labels,
        normalization=normalization,
        temperature=temperature,
    )
    return replace(task, notes=data.notes)


def _load(section: ClassificationData, /, *, seed: int, cache: Path) -> Task:
    require_photographs_for_super_resolution(_NAME, section.source)
    normalization = section.normalization()
    return classification(
        _images(section, seed, cache),
        normalization=normalization,
        augment_shift=section.augment_shift,
        augment_flip=section.augment_flip,
        calibration_samples=section.calibration_samples,
        seed=seed,
    )


def _images(section: ClassificationData, seed: int, cache: Path) -> ImageData:
    if section.source != "image-folder" or section.path is None:
        fields = type(section).model_fields
        for key in ("train", "heldout", "classes", "size", "resize", "crop", "interpolation", "colours"):
            if section.source in SOURCES[:-1] and getattr(section, key) != fields[key].default:
                raise ConfigError(f'data.{key} is for source = "image-folder" only; remove it for {section.source!r}')
        return load_source(section.source, section.path, seed=seed)
    return image_folder(
        section.path,
        section.preprocessing(),
        classes=section.classes,
        train=section.train,
        heldout=section.heldout,
        calibration_samples=section.calibration_samples,
        seed=seed,
        cache=cache,
    )


CLASSIFICATION = TaskKind(_NAME, ClassificationData, _load)


def _pixel_statistics(images: Images) -> Normalization:
    """Return mean and std of each channel of uint8 ``(N, C, H, W)``, in [0, 1], from histograms.

    Of images that are not in memory, at most `_COUNTED` are read, spread over all.
    """
    seen = images if isinstance(images, Tensor) else images[_spread(len(images), _COUNTED)]
    counts = [torch.bincount(seen[:, channel].flatten(), minlength=256) for channel in range(seen.shape[1])]
    means, stds = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for count in counts:
        share = count.double() / count.sum()
        mean = (share * values).sum()
        means.append(round(float(mean), 6))
        stds.append(max(round(float((share * (values - mean) ** 2).sum().sqrt()), 6), 1e-3))
    return Normalization(tuple(means), tuple(stds))


def _spread(total: int, most: int) -> Tensor:
    """Return at most ``most`` indices below ``total``, evenly spread."""
    return torch.arange(min(total, most)) * total // min(total, most)
