"""The task of enlarging images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch.nn.functional as F
from pydantic import Field

from sekron_edge.data._classification import ClassificationData
from sekron_edge.data._photographs import (
    CropPairs,
    Photographs,
    photographs,
    require_photographs_for_super_resolution,
)
from sekron_edge.task import Task
from sekron_edge.task_kinds import ConfigPath, DataSection, TaskKind

if TYPE_CHECKING:
    import torchmetrics

_NAME = "super-resolution"
_CROP = 64


class SuperResolutionData(DataSection):
    """The arguments of `photographs` and `super_resolution`.

    Attributes:
        source: ``photographs``.
        path: Folder or zip with images in ``train`` and ``test``; by default those of scikit-learn and scikit-image.
        size: Height and width of the model's output, in pixels; by default 64.
        calibration_samples: Number of crops of the training photographs for calibration; the same number is held out.
    """

    source: str
    path: ConfigPath | None = None
    size: int | None = Field(default=None, ge=1)
    calibration_samples: int = Field(default=512, ge=1)

    def cache_key(self) -> str:
        """Return the key of the one section that both built-in kinds had when models in users' caches were trained."""
        return ClassificationData(**self.model_dump()).cache_key()


def super_resolution(
    data: Photographs,
    *,
    scale: int = 2,
    crop: int = _CROP,
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
        name=_NAME,
        train=CropPairs(data.train, crops, crop=crop, scale=scale, random=True),
        calibration=CropPairs(data.train, calibration_samples, crop=crop, scale=scale),
        heldout=CropPairs(data.heldout, calibration_samples, crop=crop, scale=scale),
        loss=F.l1_loss,
        distillation=F.mse_loss,
        metric=_psnr if metric == "psnr" else _ssim,
        metric_name="PSNR" if metric == "psnr" else "SSIM",
        metric_unit="dB" if metric == "psnr" else "",
        notes=data.notes,
    )


def _load(section: SuperResolutionData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    require_photographs_for_super_resolution(_NAME, section.source)
    return super_resolution(
        photographs(section.path, seed=seed),
        crop=section.size or _CROP,
        calibration_samples=section.calibration_samples,
    )


SUPER_RESOLUTION = TaskKind(_NAME, SuperResolutionData, _load)


def _psnr() -> torchmetrics.Metric:
    from torchmetrics.image import PeakSignalNoiseRatio

    return PeakSignalNoiseRatio(data_range=1.0)


def _ssim() -> torchmetrics.Metric:
    from torchmetrics.image import StructuralSimilarityIndexMeasure

    return StructuralSimilarityIndexMeasure(data_range=1.0)
