"""Batch-norm statistics computed again."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from sekron_edge.data import collate
from sekron_edge.task import Samples


def reestimate_batch_norm(model: nn.Module, samples: Samples, *, batch_size: int = 256) -> nn.Module:
    """Return a copy of ``model`` whose batch-norm statistics are those of ``samples``.

    The statistics are the plain mean over batches; an incomplete last batch is left out if there are others. Everything
    except batch norm runs in evaluation mode.
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
    whole = len(samples) > batch_size  # type: ignore[arg-type]
    loader = DataLoader(samples, batch_size, collate_fn=collate, drop_last=whole, generator=torch.Generator())
    parameter = next(copy.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    with torch.no_grad():
        for inputs, _ in loader:
            copy(inputs.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, mode in training.items():
        module.training = mode
    return copy
