"""The task of predicting numbers: any values, or the places of keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sekron_edge.data._keypoints import Coordinates, keypoint_distance, keypoint_share, spread
from sekron_edge.data._outputs import main_output, of_main_output
from sekron_edge.errors import ConfigError
from sekron_edge.task import Normalization, Samples, Task

if TYPE_CHECKING:
    import torchmetrics

_NAME = "regression"

Loss = Literal["mse", "smooth-l1"]


def regression(
    train: Samples,
    calibration: Samples,
    heldout: Samples,
    *,
    scale: Sequence[float] | None = None,
    loss: Loss = "mse",
    unit: str = "",
    normalization: Normalization | None = None,
) -> Task:
    """Make the task of predicting values; the metric is their mean absolute error, and less is better.

    Of several outputs, the one named ``logits`` or ``out`` counts, else the first; it may have any shape with as many
    values as the targets.

    Args:
        train: Samples ``(inputs, values)``; values are float32 ``(D,)``.
        calibration: Training samples without augmentation.
        heldout: Samples for final figures.
        scale: Of each value, ``D`` numbers: errors are counted in it by the losses, so that all values count alike. Say
            the standard deviations of the training targets; by default 1.
        loss: Squared errors, or Huber's with its corner at the scale.
        unit: Of the values.
        normalization: Of images; for the manifest.
    """
    divergence = partial(_squared, scale)
    return Task(
        name=_NAME,
        train=train,
        calibration=calibration,
        heldout=heldout,
        loss=divergence if loss == "mse" else partial(_huber, scale),
        distillation=divergence,
        metric=_absolute_error,
        metric_name="mean absolute error",
        metric_unit=unit,
        normalization=normalization,
    )


def keypoints(
    train: Samples,
    calibration: Samples,
    heldout: Samples,
    *,
    size: tuple[int, int],
    coordinates: Coordinates = "pixels",
    pck: float | None = None,
    loss: Loss = "mse",
    normalization: Normalization | None = None,
) -> Task:
    """Make the task of finding ``K`` keypoints; the metric is their mean distance, as a share of the image's diagonal.

    Args:
        train: Samples ``(image, points)``; points are float32 ``(2 K,)``: x and y of each in turn, as the model gives
            them.
        calibration: Training samples without augmentation.
        heldout: Samples for final figures.
        size: Height and width of the images.
        coordinates: Points are in pixels, or in shares of width and height.
        pck: The metric is the share of points that are at most this share of the diagonal away (PCK), instead.
        loss: As of `regression`.
        normalization: Of the images; for the manifest.
    """
    _, points = train[0]
    made = regression(
        train,
        calibration,
        heldout,
        scale=spread(size, coordinates, points.numel()),
        loss=loss,
        normalization=normalization,
    )
    if pck is None:
        metric, name = partial(keypoint_distance, size, coordinates), "distance of keypoints, of the diagonal"
    else:
        metric, name = partial(keypoint_share, size, coordinates, pck), f"PCK at {pck:g} of the diagonal"
    return replace(made, metric=lambda: of_main_output(metric(), _flat), metric_name=name, metric_unit="%")


def _flat(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as ``(B, D)``.

    Raises:
        ConfigError: If a model gives another number of values.
    """
    got, wanted = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if got.shape != wanted.shape:
        raise ConfigError(
            f"the data have {wanted.shape[1]} values for each sample, so a model must give (batch, {wanted.shape[1]}); "
            f"got {tuple(outputs.shape)}"
        )
    return got, wanted


def _scaled(scale: Sequence[float] | None, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Return outputs and targets, or another model's outputs, in units of the scale."""
    got, wanted = _flat(main_output(outputs), main_output(targets))
    unit = torch.ones(1) if scale is None else torch.tensor(scale)
    if len(unit) not in (1, got.shape[1]):
        raise ConfigError(f"scale must have a number for each of {got.shape[1]} values; it has {len(unit)}")
    return got / unit.to(got.device), wanted / unit.to(got.device)


def _squared(scale: Sequence[float] | None, outputs: Any, targets: Any) -> Tensor:
    return F.mse_loss(*_scaled(scale, outputs, targets))


def _huber(scale: Sequence[float] | None, outputs: Any, targets: Any) -> Tensor:
    return F.smooth_l1_loss(*_scaled(scale, outputs, targets))


def _absolute_error() -> torchmetrics.Metric:
    from torchmetrics import MeanAbsoluteError

    return of_main_output(MeanAbsoluteError(), _flat)
