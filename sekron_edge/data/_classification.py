"""The task of classifying images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from sekron_edge.data._images import AugmentedImages, ImageData
from sekron_edge.data._photographs import require_photographs_for_super_resolution
from sekron_edge.data._sources import load_source
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Task
from sekron_edge.task_kinds import ConfigPath, DataSection, TaskKind

if TYPE_CHECKING:
    import torchmetrics

_NAME = "classification"


class ClassificationData(DataSection):
    """The arguments of `load_source` and `classification`.

    Attributes:
        source: Source of the images: ``digits``, ``fashion-mnist`` or ``image-folder``.
        path: Folder or zip of the data.
        size: Images are resized to ``size`` x ``size``.
        mean, std: Normalisation of pixels in [0, 1], one value per channel; by default the training pixels' own.
        augment_shift: Largest random shift of training images, in pixels.
        augment_flip: Whether training images are mirrored at random.
        calibration_samples: Number of training images for calibration.
    """

    source: str
    path: ConfigPath | None = None
    size: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment_shift: int = Field(default=0, ge=0)
    augment_flip: bool = False
    calibration_samples: int = Field(default=512, ge=1)

    def cache_key(self) -> str:
        """Return the section under the name that it had when the models in users' caches were trained."""
        return f"DataSection({', '.join(f'{key}={value!r}' for key, value in self)})"


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
    if not temperature > 0:
        raise DataError(f"temperature must be positive; got {temperature}")
    if normalization is None:
        normalization = _pixel_statistics(data.train_images)
    chosen = _balanced(data.train_targets, calibration_samples, seed)
    return Task(
        name=_NAME,
        train=AugmentedImages(
            data.train_images, data.train_targets, normalization, shift=augment_shift, flip=augment_flip
        ),
        calibration=AugmentedImages(data.train_images[chosen], data.train_targets[chosen], normalization),
        heldout=AugmentedImages(data.heldout_images, data.heldout_targets, normalization),
        loss=F.cross_entropy,
        distillation=partial(softened_divergence, temperature=temperature),
        metric=partial(_accuracy, len(data.labels)),
        metric_name="accuracy",
        labels=data.labels,
        normalization=normalization,
        divergence=partial(softened_divergence, temperature=1.0),
    )


def _load(section: ClassificationData, /, *, seed: int, cache: Path) -> Task:
    require_photographs_for_super_resolution(_NAME, section.source)
    normalization = None
    if section.mean is not None and section.std is not None:
        normalization = Normalization(section.mean, section.std)
    elif section.mean is not None or section.std is not None:
        raise ConfigError("data.mean and data.std belong together: give both, or neither")
    return classification(
        load_source(section.source, section.path, size=section.size, cache=cache, seed=seed),
        normalization=normalization,
        augment_shift=section.augment_shift,
        augment_flip=section.augment_flip,
        calibration_samples=section.calibration_samples,
        seed=seed,
    )


CLASSIFICATION = TaskKind(_NAME, ClassificationData, _load)


def _accuracy(classes: int) -> torchmetrics.Metric:
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(num_classes=classes, average="micro")


def softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Return ``T^2 KL(teacher || student)`` of softened outputs, the mean over the batch.

    This is Hinton's distillation loss: the teacher's distribution is the reference.

    Args:
        student: ``(batch, classes)``, or ``(batch, classes, ...)`` for a class at each place: what the places diverge
            by is added up.
        teacher: Of the same shape.
        temperature: Softens both.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def _pixel_statistics(images: Tensor) -> Normalization:
    """Return mean and std of each channel of uint8 ``(N, C, H, W)``, in [0, 1], from histograms."""
    means, stds = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(images.shape[1]):
        share = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share /= share.sum()
        mean = (share * values).sum()
        means.append(round(float(mean), 6))
        stds.append(max(round(float((share * (values - mean) ** 2).sum().sqrt()), 6), 1e-3))
    return Normalization(tuple(means), tuple(stds))


def _balanced(targets: Tensor, count: int, seed: int) -> Tensor:
    """Choose ``count`` indices, one of each class in turn until a class is used up."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    shuffled = targets[order]
    turn = torch.empty_like(order)
    for label in range(int(targets.max()) + 1):
        members = (shuffled == label).nonzero().flatten()
        turn[members] = torch.arange(len(members))
    return order[torch.argsort(turn, stable=True)[:count]]
