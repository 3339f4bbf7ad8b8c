"""What every exporter does to a model before it converts it."""

from __future__ import annotations

import copy
from itertools import chain

import torch

from sekron_edge.errors import ExportError
from sekron_edge.nn import fold_batch_norms_


def prepared(model: torch.nn.Module, exporter: str) -> torch.nn.Module:
    """Return a copy in evaluation mode, batch norms folded into factors, weights in memory in the ordinary order.

    litert-torch 0.10 mixes up weights of equal shape that lie channels-last: it knows a constant by its address, and
    those are copied to addresses that are used again.

    Raises:
        ExportError: If a parameter or buffer holds NaN; names it.
    """
    evaluated = copy.deepcopy(model).eval()
    fold_batch_norms_(evaluated)
    for name, tensor in chain(evaluated.named_parameters(), evaluated.named_buffers()):
        if tensor.isnan().any():
            raise ExportError(
                f"{exporter}: {type(model).__name__} cannot be converted: {name} holds NaN; train it again"
            )
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return evaluated
