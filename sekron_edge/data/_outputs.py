"""What losses and metrics see of a model's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from sekron_edge.artifacts import MAIN_OUTPUTS
from sekron_edge.errors import ConfigError
from sekron_edge.pytrees import tensors

if TYPE_CHECKING:
    import torchmetrics


def main_output(outputs: Any) -> Tensor:
    """Return the tensor that a task with one output is about: the one named ``logits`` or ``out``, else the first.

    Raises:
        ConfigError: If there is no tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        for name in MAIN_OUTPUTS:
            if isinstance(outputs.get(name), Tensor):
                found: Tensor = outputs[name]
                return found
    found_in_order = tensors(outputs)
    if not found_in_order:
        raise ConfigError(f"a model must give at least one tensor; got {type(outputs).__name__} without any")
    return found_in_order[0]


def softened_divergence(student: Any, teacher: Any, *, temperature: float) -> Tensor:
    """Return ``T^2 KL(teacher || student)`` of softened outputs, the mean over the batch.

    This is Hinton's distillation loss: the teacher's distribution is the reference.

    Args:
        student: ``(batch, classes)``, or ``(batch, classes, ...)`` for a class at each place: what the places diverge
            by is added up. Of several outputs, the main one counts.
        teacher: Of the same shape.
        temperature: Softens both.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(main_output(student) / temperature, dim=1),
        F.log_softmax(main_output(teacher) / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def of_main_output(
    metric: torchmetrics.Metric, prepare: Callable[[Tensor, Any], tuple[Tensor, Any]]
) -> torchmetrics.Metric:
    """Return a metric that sees a model's main output.

    Args:
        metric: Sees what ``prepare`` returns.
        prepare: Gets the main output and the targets.
    """
    from torchmetrics.wrappers.abstract import WrapperMetric

    class OfMainOutput(WrapperMetric):  # type: ignore[misc, unused-ignore]
        """A metric of the main output."""

        higher_is_better = metric.higher_is_better

        def __init__(self) -> None:
            super().__init__()
            self.metric = metric

        def update(self, outputs: Any, targets: Any) -> None:
            self.metric.update(*prepare(main_output(outputs), targets))

        def compute(self) -> Tensor:
            value: Tensor = self.metric.compute()
            return value

        def reset(self) -> None:
            super().reset()
            self.metric.reset()

    return OfMainOutput()
