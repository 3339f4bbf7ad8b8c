"""What the time of a primitive may depend on: work in whole tiles, tiles begun, values moved. No torch here.

CPU kernels (XNNPACK's, and others') see a convolution as a matrix product of ``rows`` output pixels times ``columns``
output channels over ``depth`` input channels and taps, done in tiles: what does not fill a tile costs as if it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from pydantic import BaseModel, ConfigDict

from sekron_edge.primitives import VALUE_BYTES, Conv, ConvTranspose, Linear, Permute, Primitive

# Vector kernels take so many taps of a depthwise convolution at once; beyond, it is left to a slow one.
_DEPTHWISE_TAPS = 25
# A second-level cache: what does not fit is read from further away.
_CACHE_BYTES = 1 << 20
# Caches keep few lines whose addresses are so many bytes apart.
_ALIASING_BYTES = 1024


class Tile(BaseModel):
    """How many output pixels, output channels and input channels a kernel computes at once."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = 1
    columns: int = 1
    depth: int = 1


@dataclass(frozen=True)
class _Product:
    """A primitive as matrix products: for each image and group, ``rows x depth x taps`` times ``columns``."""

    images: int
    groups: int
    rows: int
    columns: int
    depth: int
    taps: float

    @classmethod
    def of(cls, primitive: Conv | ConvTranspose | Linear) -> _Product:
        if isinstance(primitive, Linear):
            return cls(1, 1, primitive.rows, primitive.out_features, primitive.in_features, 1)
        taps = float(prod(primitive.kernel))
        if isinstance(primitive, ConvTranspose):
            taps /= prod(primitive.stride)  # an output pixel sees one in so many
        return cls(
            images=primitive.in_shape[0],
            groups=primitive.groups,
            rows=prod(primitive.out_spatial),
            columns=primitive.out_channels // primitive.groups,
            depth=primitive.in_shape[1] // primitive.groups,
            taps=taps,
        )


def kind(primitive: Primitive) -> str:
    """Return the kind of operation; each has coefficients of its own. Transposed convolutions are taken for others."""
    if isinstance(primitive, Permute):
        return "permute"
    if isinstance(primitive, Linear):
        return "linear"
    if primitive.groups == 1:
        return "pointwise" if prod(primitive.kernel) == 1 else "conv"
    if primitive.groups < primitive.in_shape[1]:
        return "grouped"
    return "depthwise" if prod(primitive.kernel) <= _DEPTHWISE_TAPS else "large depthwise"


def features(primitive: Primitive, tile: Tile, precision: str) -> tuple[float, ...]:
    """Return what the time of an operation adds up from; the first is the call, 1."""
    width = VALUE_BYTES[precision]
    moved = float(primitive.in_elements + primitive.out_elements)
    if isinstance(primitive, Permute):
        values = float(primitive.in_elements)
        aliased = values if primitive.shape[-1] * width % _ALIASING_BYTES == 0 else 0.0
        runs = moved / min(primitive.shape[-1], 64)
        return (1.0, values, runs, aliased, values * len(primitive.order), _beyond(moved * width))
    product = _Product.of(primitive)
    outputs = float(product.images * product.groups * product.rows)
    if kind(primitive) in ("depthwise", "large depthwise"):
        channels = _whole(primitive.out_elements // (product.images * product.rows), tile.columns)
        pixels = float(product.images * product.rows)
        work = pixels * channels * product.taps
        return (1.0, work, pixels * channels, pixels, pixels * product.taps, moved, _beyond(moved * width))
    weights = product.groups * product.columns * product.depth * product.taps
    strips = ceil(product.columns / tile.columns)
    tiles = product.images * product.groups * ceil(product.rows / tile.rows) * strips
    depth = product.taps * _whole(product.depth, tile.depth)
    return (
        1.0,
        outputs * strips * tile.columns * depth,
        tiles * tile.rows * tile.columns * depth,
        float(tiles),
        tiles * tile.rows * product.taps,
        outputs * strips * depth,
        outputs * product.taps,
        float(product.images * product.groups),
        moved,
        weights,
        _beyond((moved + weights) * width),
    )


def _whole(size: int, part: int) -> int:
    return ceil(size / part) * part


def _beyond(size: float) -> float:
    return max(0.0, size - _CACHE_BYTES)
