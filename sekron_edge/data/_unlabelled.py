"""Tasks without labels: what the original gives is what a smaller model must give."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sekron_edge import pytrees
from sekron_edge.arguments import require, shown
from sekron_edge.data._images import batch_of
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Samples, Task

if TYPE_CHECKING:
    import torchmetrics

_LOGITS = "logits"


def unlabelled(
    train: Samples,
    *,
    calibration: Samples | None = None,
    heldout: Samples | None = None,
    name: str = "unlabelled",
) -> Task:
    """Make a task of inputs alone, for models of any outputs.

    Plans and distillation compare each output with the original's, see `output_divergence`. The metric is the agreement
    with the original, 1 for equal outputs, see `output_agreement`.

    Args:
        train: Inputs for distillation, in the form of `sekron_edge.pytrees.call`; a sample has no batch axis.
        calibration: For calibration and sensitivity; by default the training samples.
        heldout: For final figures and verification; by default the training samples, which then judge themselves.
        name: In the manifest.
    """
    return Task(
        name=name,
        train=train,
        calibration=train if calibration is None else calibration,
        heldout=train if heldout is None else heldout,
        loss=None,
        distillation=output_divergence,
        metric=output_agreement,
        metric_name="agreement with the original",
        has_targets=False,
    )


def output_divergence(outputs: pytrees.Outputs, reference: pytrees.Outputs) -> Tensor:
    """Return how far outputs are from the original's: the mean over tensors, so that a small one counts like a large.

    A tensor named ``logits`` diverges by ``KL(reference || outputs)`` over its axis 1, averaged over the batch; others
    by their mean squared difference, as a share of the reference's mean square.
    """
    named = pytrees.named_tensors(reference)
    pairs = zip(named.items(), pytrees.tensors(outputs), strict=True)
    return torch.stack([_divergence(name, got, wanted) for (name, wanted), got in pairs]).mean()


def _divergence(name: str, got: Tensor, wanted: Tensor) -> Tensor:
    if _are_logits(name, wanted):
        own, other = got.float().log_softmax(1), wanted.float().log_softmax(1)
        return torch.nn.functional.kl_div(own, other, reduction="batchmean", log_target=True)
    got, wanted = got.float(), wanted.float()
    return (got - wanted).square().mean() / wanted.square().mean().clamp_min(torch.finfo(torch.float32).tiny)


def _are_logits(name: str, values: Tensor) -> bool:
    return name.rpartition(".")[2] == _LOGITS and values.ndim > 1


def output_agreement() -> torchmetrics.Metric:
    """Return a metric of outputs and the original's: the mean over tensors of what is equal.

    Of a tensor named ``logits`` that is the share of places whose largest value is at the same index of axis 1; of
    others, the share of the reference's mean square that is left when the squared difference is taken off, at least 0.
    """
    import torchmetrics

    class Agreement(torchmetrics.Metric):
        """Sums over batches, for each tensor: what agrees, and what there is."""

        agreeing: Tensor
        whole: Tensor

        def __init__(self) -> None:
            super().__init__()
            # Of as many tensors as the first batch has.
            self.add_state("agreeing", torch.zeros(0, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("whole", torch.zeros(0, dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, outputs: pytrees.Outputs, reference: pytrees.Outputs) -> None:
            """Compare a batch."""
            named = pytrees.named_tensors(reference)
            pairs = zip(named.items(), pytrees.tensors(outputs), strict=True)
            counts = [_agreeing(name, got, wanted) for (name, wanted), got in pairs]
            agreeing, whole = torch.tensor(counts, dtype=torch.float64, device=self.whole.device).T
            seen = len(self.whole) > 0
            self.agreeing = self.agreeing + agreeing if seen else agreeing
            self.whole = self.whole + whole if seen else whole

        def compute(self) -> Tensor:
            """Return the mean over tensors."""
            shares = self.agreeing / self.whole.clamp_min(torch.finfo(torch.float64).tiny)
            return torch.where(self.whole > 0, shares.clamp_min(0), torch.ones_like(shares)).mean()

    return Agreement()


def _agreeing(name: str, got: Tensor, wanted: Tensor) -> tuple[float, float]:
    if _are_logits(name, wanted):
        same = got.argmax(1) == wanted.argmax(1)
        return float(same.sum()), float(same.numel())
    got, wanted = got.double(), wanted.double()
    energy = float(wanted.square().sum())
    return energy - float((got - wanted).square().sum()), energy


class Referenced(Dataset[Any]):
    """Inputs, each with what a model gives for it as its target.

    Args:
        inputs: Samples that are inputs alone.
        model: In evaluation mode; run when samples are read.
    """

    def __init__(self, inputs: Samples, model: nn.Module) -> None:
        self.inputs = inputs
        self._model = model

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.inputs)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return a sample, without a batch axis."""
        inputs, outputs = self.__getitems__([index])
        alone: tuple[Any, Any] = pytrees.map_batched(lambda value: value[0] if value.ndim else value, (inputs, outputs))
        return alone

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, Any]:
        """Return samples as one batch."""
        batch = batch_of(self.inputs, indices)
        with torch.no_grad():
            return batch, pytrees.call(self._model, batch)


def referenced(task: Task, model: nn.Module) -> Task:
    """Return a task without labels as one whose targets are a model's outputs; any other task as it is.

    Args:
        task: Any.
        model: The original; copied.
    """
    if task.has_targets:
        return task
    model = deepcopy(model).eval()
    train, calibration, heldout = (Referenced(each, model) for each in (task.train, task.calibration, task.heldout))
    return replace(
        task, train=train, calibration=calibration, heldout=heldout, loss=task.distillation, has_targets=True
    )


def require_task(task: object) -> None:
    """Refuse what is no task, or has a split without samples.

    Raises:
        ConfigError: If it is no task.
        DataError: If a split has no samples, or does not know how many.
    """
    require(task, Task, "task", "a sekron_edge.Task, which holds data and metric")
    assert isinstance(task, Task)
    for name in ("train", "calibration", "heldout"):
        samples: Any = getattr(task, name)
        try:
            count = len(samples)
        except (TypeError, NotImplementedError) as error:
            raise DataError(
                f"{name} samples of task {task.name!r} must be a data set with a length and indices; got "
                f"{shown(samples)}: keep them in a list, or give it __len__ and __getitem__"
            ) from error
        if count == 0:
            raise DataError(f"task {task.name!r} has no {name} samples; give at least one")


def require_targets(task: Task) -> None:
    """Refuse to judge a model on a task without labels.

    Raises:
        ConfigError: If it is no task, or has no labels; names the remedy.
        DataError: As `require_task`.
    """
    require_task(task)
    if not task.has_targets:
        raise ConfigError(
            f"task {task.name!r} has no labels to judge a model by; with the original's outputs in their place it is "
            "sekron_edge.data.referenced(task, original)"
        )


def calibration_batch(task: Task, indices: Sequence[int]) -> pytrees.Inputs:
    """Return the inputs of some calibration samples as one batch."""
    return _inputs(task.calibration, task, indices)


def training_batch(task: Task, indices: Sequence[int]) -> pytrees.Inputs:
    """Return the inputs of some training samples as one batch; augmented, where the task augments them."""
    return _inputs(task.train, task, indices)


def _inputs(samples: Samples, task: Task, indices: Sequence[int]) -> pytrees.Inputs:
    if isinstance(samples, Referenced):
        return batch_of(samples.inputs, indices)
    batch = batch_of(samples, indices)
    return batch[0] if task.has_targets else batch
