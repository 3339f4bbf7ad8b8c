"""Layers that convolve with the kernel that their factors stand for, for a while: for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sekron_edge.nn._fake_quantize import FakeQuantized
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear

# Convolutions one after another that train no more slowly than the dense one: Tucker-2's.
_FEW_STEPS = 3


@contextmanager
def rebuilt_kernels(model: nn.Module) -> Iterator[None]:
    """Let layers of many small steps rebuild their kernel and convolve once, within the block.

    The same outputs, and the same gradients of the factors, to rounding. Moving and folding channels, and four
    convolutions or more with little to compute in each, are made for runtimes that do so cheaply: PyTorch trains them
    more slowly than it trains the dense layer. A model whose roundings are simulated computes with its factors all the
    same, since it is they that are rounded.
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
