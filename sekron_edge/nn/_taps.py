"""Where a layer's stride, padding and dilation go when its factors are applied one after another. No torch here.

Factor k's taps are (product of later factors' sizes in that mode) x (the layer's dilation) apart.
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
        stride, dilation: One value per spatial axis.
        padding: Zeros at both ends of each axis; any other kind is done before the factors. In a transposed
            convolution: the values that are cut off at both ends.
        groups: The layer's.
        output_padding: Values that a transposed convolution adds at the end of each axis.
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
        kernel, stride, padding, dilation: PyTorch's, one value per spatial axis.
        output_padding: Of a transposed convolution, else zeros.
        kind: ``mirrored`` is a convolution with its taps in reverse: a transposed one without stride.
    """

    kernel: Axes
    stride: Axes
    padding: Axes
    dilation: Axes
    output_padding: Axes
    kind: Literal["convolution", "mirrored", "transposed"]

    @property
    def sliced(self) -> bool:
        """Whether a transposed convolution's padding is sliced off its output, instead of left to the operator.

        litert-torch 0.10 converts few paddings of transposed convolutions.
        """
        fits = all(extra <= cut for extra, cut in zip(self.output_padding, self.padding, strict=True))
        return self.kind == "transposed" and fits

    def out_spatial(self, spatial: Axes) -> Axes:
        """Return the spatial size of the output."""
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
    """As `taps_of`: taps do not depend on ranks and channels."""
    columns = [
        _axis([kernel[axis] for kernel in kernels], geometry, turns, axis) for axis in range(geometry.spatial_axes)
    ]
    convolutions = []
    for position, k in enumerate(turns):
        here = [column[position] for column in columns]
        stride, padding, dilation, output_padding = [tuple(value) for value in zip(*here, strict=True)] or [()] * 4
        kind: Literal["convolution", "mirrored", "transposed"] = "convolution"
        if geometry.transposed:
            # Without stride, spreading over the output equals gathering from the input padded by the whole extent.
            extents = [d * (kernel - 1) for d, kernel in zip(dilation, kernels[k], strict=True)]
            gathered = tuple(extent - cut for extent, cut in zip(extents, padding, strict=True))
            mirrored = max(stride) == 1 and not any(output_padding) and min(gathered) >= 0
            kind, padding = ("mirrored", gathered) if mirrored else ("transposed", padding)
        convolutions.append(Taps(kernels[k], stride, padding, dilation, output_padding, kind))
    return tuple(convolutions)


def _axis(
    sizes: Sequence[int], geometry: ConvGeometry, turns: Sequence[int], axis: int
) -> list[tuple[int, int, int, int]]:
    """Return stride, padding (or the values cut off), dilation and output padding of each turn, along one axis.

    Args:
        sizes: Of each factor's kernel along the axis.
        geometry: The layer's attributes.
        turns: The order of factors.
        axis: Number of the spatial axis.
    """
    tapping = [turn for turn, k in enumerate(turns) if sizes[k] > 1]
    dilations = [geometry.dilation[axis] * prod(sizes[k + 1 :]) for k in turns]
    strides, paddings, extras = [1] * len(turns), [0] * len(turns), [0] * len(turns)
    if not geometry.transposed:
        # Padding comes before the first tap; stride at the last tap, or at once where there is none.
        strides[tapping[-1] if tapping else 0] = geometry.stride[axis]
        paddings[tapping[0] if tapping else 0] = geometry.padding[axis]
        return list(zip(strides, paddings, dilations, extras, strict=True))
    # Stride is at the first tap, or at the end. Values to cut off are not computed: by the last taps, where they reach.
    first = tapping[0] if tapping else len(turns) - 1
    strides[first], extras[first] = geometry.stride[axis], geometry.output_padding[axis]
    left = geometry.padding[axis]
    for turn in reversed(tapping[1:]):
        paddings[turn] = min(left, dilations[turn] * (sizes[turns[turn]] - 1))
        left -= paddings[turn]
    paddings[first] = left
    return list(zip(strides, paddings, dilations, extras, strict=True))
