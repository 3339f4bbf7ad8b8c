"""Tasks with one class for each sample."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from sekron_edge.data._outputs import main_output, of_main_output, softened_divergence
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization, Samples, Task

if TYPE_CHECKING:
    import torchmetrics


def labelled(
    train: Samples,
    calibration: Samples,
    heldout: Samples,
    *,
    labels: tuple[str, ...],
    name: str = "classification",
    normalization: Normalization | None = None,
    temperature: float = 4.0,
) -> Task:
    """Make the task of choosing one class for each sample, from samples of any kind.

    Args:
        train: Samples ``(inputs, class)``, the class an int64.
        calibration: Training samples without augmentation.
        heldout: Samples for final figures.
        labels: Names of the classes, in the order of the model's outputs.
        name: The task's name.
        normalization: Of images; for the manifest.
        temperature: Softens both models' outputs in distillation.
    """
    if not temperature > 0:
        raise DataError(f"temperature must be positive; got {temperature}")
    return Task(
        name=name,
        train=train,
        calibration=calibration,
        heldout=heldout,
        loss=partial(_loss, len(labels)),
        distillation=partial(softened_divergence, temperature=temperature),
        metric=partial(_accuracy, len(labels)),
        metric_name="accuracy",
        labels=labels,
        normalization=normalization,
        divergence=partial(softened_divergence, temperature=1.0),
    )


def _loss(classes: int, outputs: Any, targets: Tensor) -> Tensor:
    return F.cross_entropy(_scores(classes, outputs), targets)


def _accuracy(classes: int) -> torchmetrics.Metric:
    from torchmetrics.classification import MulticlassAccuracy

    metric = MulticlassAccuracy(num_classes=classes, average="micro")
    return of_main_output(metric, lambda outputs, targets: (_scores(classes, outputs), targets))


def _scores(classes: int, outputs: Any) -> Tensor:
    scores = main_output(outputs)
    if scores.ndim < 2 or scores.shape[1] != classes:
        raise ConfigError(
            f"the data have {classes} classes, so a model must give (batch, {classes}); got {tuple(scores.shape)}. "
            "Where they are some of the model's classes, name all of them: data.classes"
        )
    return scores
