"""The attributes of PyTorch's layers, in the terms of the factor convolution."""

from __future__ import annotations

from itertools import chain as joined

import torch
from torch import Tensor, nn

from sekron_edge.nn._taps import ConvGeometry

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def layer_geometry(layer: nn.Module) -> tuple[ConvGeometry, tuple[int, ...]]:
    """Return a layer's geometry, and the padding that `F.pad` has to do before it; none if it is in the geometry.

    Args:
        layer: ``nn.Linear``, a convolution or a transposed convolution.
    """
    if isinstance(layer, nn.Linear):
        return ConvGeometry(), ()
    assert isinstance(layer, Convolution | TransposedConvolution)
    stride, dilation = tuple(layer.stride), tuple(layer.dilation)
    if isinstance(layer, TransposedConvolution):
        assert not isinstance(layer.padding, str)
        cut, extra = tuple(layer.padding), tuple(layer.output_padding)
        return ConvGeometry(stride, cut, dilation, layer.groups, output_padding=extra, transposed=True), ()
    ends = padding_ends(layer)
    symmetric = layer.padding_mode == "zeros" and ends[::2] == ends[1::2]
    padding = ends[::-2] if symmetric else (0,) * len(stride)
    return ConvGeometry(stride, padding, dilation, layer.groups), () if symmetric else ends


def padding_ends(layer: Convolution) -> tuple[int, ...]:
    """Return a layer's padding at both ends of every spatial axis, in ``F.pad``'s order (the last axis first)."""
    ends = [(0, 0) for _ in layer.stride]
    if layer.padding == "same":
        for axis, (kernel, dilation) in enumerate(zip(layer.kernel_size, layer.dilation, strict=True)):
            total = dilation * (kernel - 1)
            ends[axis] = (total // 2, total - total // 2)
    elif not isinstance(layer.padding, str):
        ends = [(amount, amount) for amount in layer.padding]
    return tuple(joined.from_iterable(reversed(ends)))


def layer_weight(layer: nn.Module) -> Tensor:
    """Return a layer's weight, groups apart and outputs first: ``(groups, F / groups, C / groups, *kernel)``."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    weight = weight.detach()
    groups = int(getattr(layer, "groups", 1))
    apart = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return apart.transpose(1, 2) if isinstance(layer, TransposedConvolution) else apart


def joined_weight(groups: list[Tensor], *, transposed: bool) -> Tensor:
    """Undo `layer_weight`: return the weight as PyTorch's layer has it, ``(C, F / groups, *kernel)`` if transposed."""
    return torch.cat([group.transpose(0, 1) for group in groups] if transposed else groups)
