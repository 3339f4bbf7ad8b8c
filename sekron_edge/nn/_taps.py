"""Where a layer's stride, padding and dilation go when its factors are applied one after another. No torch here.

Factor k's taps stand (product of later factors' sizes in that mode) x (the layer's dilation) apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

from sekron_edge.primitives import Conv, ConvTranspose
from sekron_edge.structure import Structure

Axes = tuple[int, ...]


@dataclass(frozen=True)
class ConvGeometry:
    """The attributes of a convolution that its factors have to keep; no spatial axes for a linear layer.

    Attributes:
        stride, dilation: One value a spatial axis.
        padding: Zeros at both ends of each axis; any other kind is done before the factors. Of a transposed
            convolution: what is cut off at both ends.
        groups: The layer's.
        output_padding: What a transposed convolution adds at the end of each axis.
        transposed: Whether each input value is spread over the output, instead of gathered from the input.
    """

    stride: Axes = ()
    padding: Axes = ()
    dilation: Axes = ()
    groups: int = 1
    output_padding: Axes = ()
    transposed: bool = False

    @property
    def spatial_axes(self) -> int:
        """Number of spatial axes."""
        return len(self.stride)


@dataclass(frozen=True)
class Taps:
    """The convolution of one factor.

    Attributes:
        kernel, stride, padding, dilation: PyTorch's, one value a spatial axis.
        output_padding: Of a transposed convolution, else zeros.
        kind: ``mirrored`` is a convolution with the taps in reverse: a transposed one without stride.
    """

    kernel: Axes
    stride: Axes
    padding: Axes
    dilation: Axes
    output_padding: Axes
    kind: Literal["convolution", "mirrored", "transposed"]

    @property
    def sliced(self) -> bool:
        """Whether the padding of a transposed convolution is sliced off what it writes, not left out by itself.

        litert-torch 0.10 converts few paddings of transposed convolutions.
        """
        fits = all(extra <= cut for extra, cut in zip(self.output_padding, self.padding, strict=True))
        return self.kind == "transposed" and fits

    def out_spatial(self, spatial: Axes) -> Axes:
        """Return the size of what the next factor gets."""
        axes = zip(spatial, self.kernel, self.stride, self.padding, self.dilation, self.output_padding, strict=True)
        if self.kind == "transposed":
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 + extra for n, k, s, p, d, extra in axes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in axes)

    def primitive(self, in_shape: Axes, out_channels: int, groups: int) -> Conv | ConvTranspose:
        """Return the operation on ``(rows, channels, *spatial)``."""
        out = self.out_spatial(in_shape[2:])
        if self.kind == "transposed":
            if self.sliced:
                axes = zip(out, self.padding, self.output_padding, strict=True)
                out = tuple(n + 2 * cut - extra for n, cut, extra in axes)
            return ConvTranspose(in_shape, out_channels, self.kernel, self.stride, groups, out)
        return Conv(
            in_shape=in_shape,
            out_channels=out_channels,
            kernel=self.kernel,
            stride=self.stride,
            dilation=self.dilation,
            groups=groups,
            out_spatial=out,
            padding=self.padding,
        )


def taps_of(structure: Structure, geometry: ConvGeometry, turns: Sequence[int]) -> tuple[Taps, ...]:
    """Return the convolution of each factor, in the order of ``turns``."""
    return _taps_of(tuple(factor.shape[2:] for factor in structure.factors), geometry, tuple(turns))


@lru_cache(maxsize=4096)
def _taps_of(kernels: tuple[Axes, ...], geometry: ConvGeometry, turns: tuple[int, ...]) -> tuple[Taps, ...]:
    """As `taps_of`: they are those of all ranks, and of all channels."""
    columns = [
        _axis([kernel[axis] for kernel in kernels], geometry, turns, axis) for axis in range(geometry.spatial_axes)
    ]
    found = []
    for position, k in enumerate(turns):
        here = [column[position] for column in columns]
        stride, padding, dilation, output_padding = [tuple(value) for value in zip(*here, strict=True)] or [()] * 4
        kind: Literal["convolution", "mirrored", "transposed"] = "convolution"
        if geometry.transposed:
            # Spread over the output without stride is gathered from the input, padded by the whole extent.
            extents = [d * (kernel - 1) for d, kernel in zip(dilation, kernels[k], strict=True)]
            gathered = tuple(extent - cut for extent, cut in zip(extents, padding, strict=True))
            mirrored = max(stride) == 1 and not any(output_padding) and min(gathered) >= 0
            kind, padding = ("mirrored", gathered) if mirrored else ("transposed", padding)
        found.append(Taps(kernels[k], stride, padding, dilation, output_padding, kind))
    return tuple(found)


def _axis(
    sizes: Sequence[int], geometry: ConvGeometry, turns: Sequence[int], axis: int
) -> list[tuple[int, int, int, int]]:
    """Return stride, padding (or what is cut off), dilation and output padding of each turn, along one axis.

    Args:
        sizes: Of each factor's kernel along it.
        geometry: The layer's attributes.
        turns: The order of factors.
        axis: Of the spatial ones.
    """
    tapping = [turn for turn, k in enumerate(turns) if sizes[k] > 1]
    dilations = [geometry.dilation[axis] * prod(sizes[k + 1 :]) for k in turns]
    strides, paddings, extras = [1] * len(turns), [0] * len(turns), [0] * len(turns)
    if not geometry.transposed:
        # Padded before the first tap; reduced by the last one, or at once where no tap needs what is dropped.
        strides[tapping[-1] if tapping else 0] = geometry.stride[axis]
        paddings[tapping[0] if tapping else 0] = geometry.padding[axis]
        return list(zip(strides, paddings, dilations, extras, strict=True))
    # Enlarged by the first tap, or at the end; what is cut off is not computed: by the last taps, as far as they reach.
    first = tapping[0] if tapping else len(turns) - 1
    strides[first], extras[first] = geometry.stride[axis], geometry.output_padding[axis]
    left = geometry.padding[axis]
    for turn in reversed(tapping[1:]):
        paddings[turn] = min(left, dilations[turn] * (sizes[turns[turn]] - 1))
        left -= paddings[turn]
    paddings[first] = left
    return list(zip(strides, paddings, dilations, extras, strict=True))
