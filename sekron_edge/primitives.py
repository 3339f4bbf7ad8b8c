"""The few operations that a compressed layer is made of, priced in closed form.

A latency model predicts the time of these; a planner adds them up. 1 MAC is one
multiply-accumulate. Shapes are PyTorch's: ``(batch, channels, *spatial)``. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

# Bytes that a value takes, by precision.
VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Conv:
    """A convolution over 1, 2 or 3 spatial axes.

    ``in_shape`` is ``(batch, in_channels, *spatial)`` after explicit padding, and ``out_spatial`` what the
    convolution makes of it; a depthwise convolution has ``groups == in_channels``.
    """

    in_shape: tuple[int, ...]
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    out_spatial: tuple[int, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        per_output = prod(self.kernel) * self.in_shape[1] // self.groups
        return self.out_elements * per_output

    @property
    def in_elements(self) -> int:
        """Number of values read."""
        return prod(self.in_shape)

    @property
    def out_elements(self) -> int:
        """Number of values written."""
        return self.in_shape[0] * self.out_channels * prod(self.out_spatial)


@dataclass(frozen=True)
class ConvTranspose:
    """A transposed convolution: each input value meets each of its weights once.

    ``in_shape`` is ``(batch, in_channels, *spatial)``, and ``out_spatial`` what the convolution writes.
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


Primitive = Conv | ConvTranspose | Linear | Permute
