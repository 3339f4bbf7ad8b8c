"""The built-in tasks: classification, super-resolution."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sekron_edge.data._images import AugmentedImages, ImageData
from sekron_edge.data._photographs import CropPairs, Photographs
from sekron_edge.errors import DataError
from sekron_edge.task import Normalization, Task

if TYPE_CHECKING:
    import torchmetrics


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
        normalization: What the model expects; by default the training pixels' own mean and std.
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
        name="classification",
        train=AugmentedImages(
            data.train_images, data.train_targets, normalization, shift=augment_shift, flip=augment_flip
        ),
        calibration=AugmentedImages(data.train_images[chosen], data.train_targets[chosen], normalization),
        heldout=AugmentedImages(data.heldout_images, data.heldout_targets, normalization),
        loss=F.cross_entropy,
        distillation=partial(_softened_divergence, temperature=temperature),
        metric=partial(_accuracy, len(data.labels)),
        metric_name="accuracy",
        labels=data.labels,
        normalization=normalization,
        divergence=partial(_softened_divergence, temperature=1.0),
    )


def super_resolution(
    data: Photographs,
    *,
    scale: int = 2,
    crop: int = 64,
    crops: int = 2048,
    calibration_samples: int = 256,
    metric: Literal["psnr", "ssim"] = "psnr",
) -> Task:
    """Make the task of enlarging images.

    Args:
        data: Photographs; the model sees crops, reduced by bicubic interpolation, and gives the crops back.
        scale: How many times larger.
        crop: Height and width of the model's output, in pixels.
        crops: Random crops in an epoch of training.
        calibration_samples: Number of crops of the training photographs, on a grid; the same number is held out.
        metric: Peak signal-to-noise ratio in dB, or structural similarity in [0, 1].

    Raises:
        DataError: If a photograph is smaller than a crop, or the crop is not a multiple of the scale.
    """
    return Task(
        name="super-resolution",
        train=CropPairs(data.train, crops, crop=crop, scale=scale, random=True),
        calibration=CropPairs(data.train, calibration_samples, crop=crop, scale=scale),
        heldout=CropPairs(data.heldout, calibration_samples, crop=crop, scale=scale),
        loss=F.l1_loss,
        distillation=F.mse_loss,
        metric=_psnr if metric == "psnr" else _ssim,
        metric_name="PSNR" if metric == "psnr" else "SSIM",
        metric_unit="dB" if metric == "psnr" else "",
    )


def _psnr() -> torchmetrics.Metric:
    from torchmetrics.image import PeakSignalNoiseRatio

    return PeakSignalNoiseRatio(data_range=1.0)


def _ssim() -> torchmetrics.Metric:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    return StructuralSimilarityIndexMeasure(data_range=1.0)


def _accuracy(classes: int) -> torchmetrics.Metric:
    from torchmetrics.classification import MulticlassAccuracy

    return MulticlassAccuracy(num_classes=classes, average="micro")


def _softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """``T^2 KL(teacher || student)`` of softened ``(B, classes)`` outputs, mean over the batch.

    This is Hinton's distillation loss: the teacher's distribution is the reference.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
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
