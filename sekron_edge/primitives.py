"""The operations that networks are made of, priced in closed form.

A latency model predicts their times, and a planner adds them up. 1 MAC is one multiply-accumulate. Shapes are
PyTorch's: ``(batch, channels, *spatial)``. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

# Bytes that a value takes between operations, and a weight in the file, by precision.
VALUE_BYTES = {"fp32": 4, "fp16": 2, "int16x8": 2, "int8": 1, "int8-weights": 4, "int4-weights": 4}
WEIGHT_BYTES = VALUE_BYTES | {"int16x8": 1, "int8-weights": 1, "int4-weights": 0.5}


@dataclass(frozen=True)
class Conv:
    """A convolution over 1, 2 or 3 spatial axes.

    ``in_shape`` is ``(batch, in_channels, *spatial)`` after explicit padding, and ``out_spatial`` the spatial size of
    the output. A depthwise convolution has ``groups == in_channels``. ``padding`` is the convolution's own, zeros at
    both ends of each axis; none if empty.
    """

    in_shape: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    out_spatial: tuple[int, ...]
    padding: tuple[int, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        per_output = prod(self.kernel) * self.in_shape[1] // self.groups
        return self.out_elements * per_output

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """The shape that TensorFlow pads the input to beforehand; ``in_shape`` where the convolution pads by itself.

        TensorFlow's ``SAME`` pads a convolution with stride more at the end than at the beginning, PyTorch equally at
        both. There the padding is an operator of its own.
        """
        if not any(self.padding) or max(self.stride) == 1:
            return self.in_shape
        spatial = (n + 2 * amount for n, amount in zip(self.in_shape[2:], self.padding, strict=True))
        return (*self.in_shape[:2], *spatial)

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.in_shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return self.in_shape[0] * self.out_channels * prod(self.out_spatial)


class ChannelScale(Conv):
    """A scale and a shift of each channel that exporters make a depthwise convolution of; not counted as MACs."""

    @property
    def macs(self) -> int:
        """None: torch's counter and the literature count convolutions, linear layers and matrix products."""
        return 0


@dataclass(frozen=True)
class ConvTranspose:
    """A transposed convolution: each input value meets each of its weights once.

    ``in_shape`` is ``(batch, in_channels, *spatial)``, and ``out_spatial`` the spatial size of the output.
    """

    in_shape: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int
    out_spatial: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.in_elements * prod(self.kernel) * self.out_channels // self.groups

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.in_shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return self.in_shape[0] * self.out_channels * prod(self.out_spatial)


@dataclass(frozen=True)
class Linear:
    """``rows`` vectors of ``in_features`` times a matrix."""

    rows: int
    in_features: int
    out_features: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.rows * self.in_features * self.out_features

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return self.rows * self.in_features

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return self.rows * self.out_features


@dataclass(frozen=True)
class MatMul:
    """A product of matrices that no layer does: ``(batch, rows, inner)`` times ``(batch, inner, columns)``."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.batch * self.rows * self.inner * self.columns

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return self.batch * self.inner * (self.rows + self.columns)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return self.batch * self.rows * self.columns


@dataclass(frozen=True)
class Permute:
    """A transpose that moves data: ``shape`` before it, and the order of its axes."""

    shape: tuple[int, ...]
    order: tuple[int, ...]

    macs = 0

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return prod(self.shape)


@dataclass(frozen=True)
class Reshape:
    """A reshape that splits or joins channels: ``(batch, channels, pixels)`` before it and after it.

    It moves nothing in channels-first memory. A channels-last runtime moves the values to that memory and back, with a
    transpose before it and one after, except where there is one channel or one pixel.
    """

    before: tuple[int, int, int]
    after: tuple[int, int, int]

    macs = 0

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.before)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return prod(self.after)


@dataclass(frozen=True)
class Elementwise:
    """A function of each value: ``add`` (any sum or product), ``clip`` (ReLU), ``curve`` (sigmoid and its like).

    ``operands`` is the number of tensors of that size that are read.
    """

    function: Literal["add", "clip", "curve"]
    shape: tuple[int, ...]
    operands: int = 1

    macs = 0

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return self.operands * prod(self.shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return prod(self.shape)


@dataclass(frozen=True)
class Pool:
    """The largest value, or the mean, of each window of an image ``(batch, channels, height, width)``."""

    reduction: Literal["max", "mean"]
    in_shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    out_spatial: tuple[int, ...]

    macs = 0

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.in_shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return prod(self.in_shape[:2]) * prod(self.out_spatial)


@dataclass(frozen=True)
class Copy:
    """Values moved as they are, from ``parts`` tensors to one of ``shape``: concatenation, padding, slicing."""

    shape: tuple[int, ...]
    parts: int = 1

    macs = 0

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return prod(self.shape)


Primitive = Conv | ConvTranspose | Linear | MatMul | Permute | Reshape | Elementwise | Pool | Copy


@dataclass(frozen=True)
class FileCosts:
    """Bytes that operations take in a model file beside their weights: descriptions, scales, biases.

    Attributes:
        product: Of a convolution or a linear layer.
        channel: Of each of its output channels.
        move: Of a permute, or of a reshape, with the layout changes around it.
        other: Of any other operation.
    """

    product: float = 0.0
    channel: float = 0.0
    move: float = 0.0
    other: float = 0.0

    def bytes(self, primitives: Sequence[Primitive]) -> float:
        """Return the bytes that these operations take."""
        total = 0.0
        for primitive in primitives:
            match primitive:
                case Conv() | ConvTranspose():
                    total += self.product + self.channel * primitive.out_channels
                case Linear():
                    total += self.product + self.channel * primitive.out_features
                case Permute() | Reshape():
                    total += self.move
                case _:
                    total += self.other
        return total


WEIGHTS_ALONE = FileCosts()
