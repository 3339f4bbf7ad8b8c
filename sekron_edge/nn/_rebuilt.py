"""Layers that, for training, convolve with the kernel rebuilt from their factors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sekron_edge.nn._fake_quantize import FakeQuantized
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear

# A chain of this many convolutions trains as fast as the dense one: Tucker-2's.
_FEW_STEPS = 3


@contextmanager
def rebuilt_kernels(model: nn.Module) -> Iterator[None]:
    """Let layers of many small steps rebuild their kernel and convolve once, within the block.

    Outputs and gradients of the factors are the same to rounding. Moving and folding channels, and four or more small
    convolutions, are cheap in the runtimes that ship, but PyTorch trains them more slowly than the dense layer. A model
    with simulated rounding still computes with its factors, because those are rounded.
    """
    rounded = {inner for outer in model.modules() if isinstance(outer, FakeQuantized) for inner in outer.modules()}
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, FactorizedConv | FactorizedLinear) and _trains_slowly(layer) and layer not in rounded
    ]
    for layer in layers:
        layer.rebuilds = True
    try:
        yield
    finally:
        for layer in layers:
            layer.rebuilds = False


def _trains_slowly(layer: FactorizedConv | FactorizedLinear) -> bool:
    return layer.plan.rearranges or len(layer.plan.steps) > _FEW_STEPS
