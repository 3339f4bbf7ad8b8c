"""Batch-norm statistics computed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sekron_edge.data import calibration_batch
from sekron_edge.pytrees import Inputs, call, map_tensors
from sekron_edge.task import Task


def calibration_batches(task: Task, *, size: int = 256) -> Iterator[Inputs]:
    """Yield a task's calibration inputs, batch by batch; an incomplete last batch is left out if there are others."""
    count = len(task.calibration)  # type: ignore[arg-type]
    for start in range(0, max(1, count - size + 1), size):
        yield calibration_batch(task, range(start, min(start + size, count)))


def reestimate_batch_norm(model: nn.Module, batches: Iterable[Inputs]) -> nn.Module:
    """Return a copy of ``model`` whose batch-norm statistics are the plain mean of those of ``batches``.

    Everything except batch norm runs in evaluation mode.

    Args:
        model: Left untouched.
        batches: Inputs in the form of `sekron_edge.pytrees.call`; read only if the model has statistics.
    """
    copy = deepcopy(model)
    norms = [module for module in copy.modules() if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return copy
    training = {module: module.training for module in copy.modules()}
    momenta = [norm.momentum for norm in norms]
    copy.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    parameter = next(copy.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        for inputs in batches:
            call(copy, map_tensors(lambda values: values.to(device), inputs))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in training.items():
        module.training = mode
    return copy
