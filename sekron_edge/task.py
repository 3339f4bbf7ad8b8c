"""What a model is for: its data, its loss, and its metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.pytrees import Outputs

if TYPE_CHECKING:
    import torchmetrics

# Pairs of inputs and target, any pytrees (`sekron_edge.pytrees`); inputs alone where a task has no labels.
Samples = Dataset[Any]


@dataclass(frozen=True)
class Normalization:
    """How pixels in [0, 1] become the model's input: ``(pixel - mean) / std`` for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Task:
    """A task: everything that trains or judges a model.

    Attributes:
        name: ``classification``, or the user's own word.
        train: Samples for training and distillation, ``(inputs, target)``, any pytrees; may augment. Inputs say how the
            model is called (`sekron_edge.pytrees`). Read when they are needed.
        calibration: Samples for calibration and sensitivity: a part of the training data without
            augmentation. Never held-out data.
        heldout: Samples for final figures only.
        loss: ``(outputs, targets) -> scalar``: the supervised loss. None: models are only distilled.
        distillation: ``(student outputs, teacher outputs) -> scalar``: divergence of two models' outputs.
        divergence: ``(outputs, original outputs) -> scalar``: how far a whole model is from the original for its
            users; chooses among plans. None: that of distillation, which may compare more than users see.
        metric: Makes a new torchmetrics metric of outputs and targets. Higher is better, unless the metric's own
            ``higher_is_better`` is False. Without labels the targets are the original's outputs.
        metric_name: The metric's name in reports.
        metric_unit: ``%`` for a share in [0, 1] that is shown in per cent, else the unit of its values.
        labels: Names of the classes, empty where there are none.
        normalization: Applied to the pixels; for the manifest.
        has_targets: False where samples are inputs alone (`sekron_edge.data.unlabelled`): the original's outputs are
            their targets.
        notes: What people should know of the data, a line each, as what was read and what was left out; jobs say them.
    """

    name: str
    train: Samples
    calibration: Samples
    heldout: Samples
    loss: Callable[[Outputs, Any], Tensor] | None
    distillation: Callable[[Outputs, Outputs], Tensor]
    metric: Callable[[], torchmetrics.Metric]
    metric_name: str
    metric_unit: str = "%"
    labels: tuple[str, ...] = ()
    normalization: Normalization | None = None
    divergence: Callable[[Outputs, Outputs], Tensor] | None = None
    has_targets: bool = True
    notes: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better: what the metric says of itself, and yes if it does not say."""
        return self.metric().higher_is_better is not False

    def lost(self, value: float, reference: float) -> float:
        """Return how much worse a value of the metric is than another, in the metric's unit; negative if better."""
        return reference - value if self.higher_is_better else value - reference
