"""What every exporter does to a model before it converts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from sekron_edge.artifacts import batch_and_total, whole_batches
from sekron_edge.errors import ConfigError, ExportError
from sekron_edge.nn import fold_batch_norms_, separate_batch_norms_, with_weights_computed


def prepared(model: torch.nn.Module, exporter: str) -> torch.nn.Module:
    """Return a copy in evaluation mode, batch norms folded or made convolutions, weights in the ordinary memory order.

    litert-torch 0.10 mixes up weights of equal shape that lie channels-last: it knows a constant by its address, and
    those are copied to addresses that are used again.

    Raises:
        ExportError: If a parameter or buffer holds NaN; names it.
    """
    evaluated = with_weights_computed(model).eval()
    fold_batch_norms_(evaluated)
    separate_batch_norms_(evaluated)
    for name, tensor in chain(evaluated.named_parameters(), evaluated.named_buffers()):
        if tensor.isnan().any():
            raise ExportError(
                f"{exporter}: {type(model).__name__} cannot be converted: {name} holds NaN; train it again"
            )
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return evaluated


def calibration_batches(
    calibration: Sequence[torch.Tensor] | None, example_inputs: tuple[torch.Tensor, ...], exporter: str
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Cut calibration data into batches of the size of the example inputs; what is left over is left out.

    Raises:
        ConfigError: If there is none, or its shape is not that of the inputs.
    """
    wanted = [tuple(value.shape) for value in example_inputs]
    batch, total = batch_and_total(calibration, wanted) if calibration else (1, 0)
    if total < batch or not calibration:
        raise ConfigError(
            f"{exporter}: int8 takes the ranges of activations from calibration data, and there is none; give some "
            "hundred real inputs that are not held out"
        )
    shapes = [tuple(value.shape) for value in calibration]
    if [shape[1:] for shape in shapes] != [shape[1:] for shape in wanted]:
        raise ConfigError(f"{exporter}: calibration samples must have the shapes {wanted} of the inputs, got {shapes}")
    return map(tuple, whole_batches(calibration, wanted))
