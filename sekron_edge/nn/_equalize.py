"""Factors that quantize well: activations between them get the same range in every channel.

A label's scale is free: the factor that opens it may be multiplied by the same number that the factor that ends it is
divided by. Integers with one scale for a whole tensor waste their steps where a channel's range is small; weights have
a scale for each output channel. Nagel et al. 2019 (arXiv 1906.04721) equalise between layers.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear

_LEAST = 1e-4  # of the largest range; smaller ranges carry no information


def equalize_labels_(model: nn.Module, batches: Iterable[pytrees.Inputs]) -> None:
    """Rescale the factors of every layer so that ranges on real inputs are alike. In floats, outputs stay the same.

    Args:
        model: In evaluation mode; changed in place.
        batches: Real inputs of the model; never held-out data.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, FactorizedConv | FactorizedLinear)]
    seen: dict[nn.Module, dict[str, Tensor]] = {layer: {} for layer in layers}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, FactorizedConv | FactorizedLinear)
        for label, ranges in layer.label_ranges(inputs[0]).items():
            before = seen[layer].get(label)
            seen[layer][label] = ranges if before is None else torch.maximum(before, ranges)

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.no_grad():
            for batch in batches:
                pytrees.call(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        layer.rescale_labels_({label: _scales(ranges) for label, ranges in seen[layer].items()})


def _scales(ranges: Tensor) -> Tensor:
    largest = ranges.amax()
    return torch.ones_like(ranges) if largest == 0 else largest / ranges.clamp_min(_LEAST * largest)
