"""Features that the time of a primitive may depend on: work in whole tiles, tiles begun, values moved. No torch here.

CPU kernels (XNNPACK's, and others') see a convolution as a matrix product of ``rows`` output pixels times ``columns``
output channels over ``depth`` input channels and taps. They work in tiles, and a partly filled tile costs a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from pydantic import BaseModel, ConfigDict

from sekron_edge.primitives import (
    VALUE_BYTES,
    Conv,
    ConvTranspose,
    Copy,
    Elementwise,
    Linear,
    MatMul,
    Permute,
    Pool,
    Primitive,
    Reshape,
)

# Vector kernels of depthwise convolutions are made for these numbers of taps (XNNPACK's primary tiles), and compute
# with all of them; more taps are left to a slow kernel.
_DEPTHWISE_TAPS = (3, 4, 9, 25)
# A second-level cache; values that do not fit are read from further away.
_CACHE_BYTES = 1 << 20
# Caches keep few lines whose addresses are this many bytes apart.
_ALIASING_BYTES = 1024


class Tile(BaseModel):
    """Output pixels, output channels and input channels that a kernel computes at once."""

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
            taps /= prod(primitive.stride)  # only this share of the taps reaches an output pixel
        images, rows = primitive.in_shape[0], prod(primitive.out_spatial)
        if taps == 1 and max(primitive.stride) == 1:
            images, rows = 1, images * rows  # pixels of one image and of the next are alike
        return cls(
            images=images,
            groups=primitive.groups,
            rows=rows,
            columns=primitive.out_channels // primitive.groups,
            depth=primitive.in_shape[1] // primitive.groups,
            taps=taps,
        )


def kind(primitive: Primitive) -> str:
    """Return the kind of operation, which has its own coefficients.

    Transposed convolutions count as convolutions, and products of two activations as linear layers.
    """
    match primitive:
        case Permute() | Reshape() | Linear() | MatMul() | Copy():
            return "linear" if isinstance(primitive, MatMul) else type(primitive).__name__.lower()
        case Elementwise():
            return primitive.function
        case Pool():
            whole = all(size == 1 for size in primitive.out_spatial)
            return "global mean" if whole and primitive.reduction == "mean" else f"{primitive.reduction} pool"
    if primitive.groups == 1:
        return "pointwise" if prod(primitive.kernel) == 1 else "conv"
    if primitive.groups < primitive.in_shape[1]:
        return "grouped"
    return "depthwise" if prod(primitive.kernel) <= _DEPTHWISE_TAPS[-1] else "large depthwise"


def features(primitive: Primitive, tile: Tile, precision: str) -> tuple[float, ...]:
    """Return the terms that an operation's time adds up from; the first is the call, 1."""
    width = VALUE_BYTES[precision]
    if isinstance(primitive, MatMul):
        primitive = Linear(primitive.batch * primitive.rows, primitive.inner, primitive.columns)
    if isinstance(primitive, Conv | ConvTranspose | Linear):
        computing = _depthwise if kind(primitive) in ("depthwise", "large depthwise") else _product
        return computing(primitive, tile, width)
    return _memory_bound(primitive, width)


def _depthwise(primitive: Conv | ConvTranspose | Linear, tile: Tile, width: int) -> tuple[float, ...]:
    product = _Product.of(primitive)
    moved = float(primitive.in_elements + primitive.out_elements)
    channels = _whole(primitive.out_elements // (product.images * product.rows), tile.columns)
    pixels = float(product.images * product.rows)
    taps = next((taps for taps in _DEPTHWISE_TAPS if taps >= product.taps), product.taps)
    work = pixels * channels * taps
    padded = _padded(primitive)
    return (1.0, work, pixels * channels, pixels, pixels * taps, moved, padded, _beyond(moved * width))


def _product(primitive: Conv | ConvTranspose | Linear, tile: Tile, width: int) -> tuple[float, ...]:
    product = _Product.of(primitive)
    moved = float(primitive.in_elements + primitive.out_elements)
    outputs = float(product.images * product.groups * product.rows)
    weights = product.groups * product.columns * product.depth * product.taps
    strips = ceil(product.columns / tile.columns)
    # Too few rows for a tile are left to a kernel of one row.
    few = 2 * product.rows <= tile.rows
    tile = tile.model_copy(update={"rows": 1}) if few else tile
    tiles = product.images * product.groups * ceil(product.rows / tile.rows) * strips
    depth = product.taps * _whole(product.depth, tile.depth)
    # The last strip of columns may be left to a kernel of half the width.
    half = max(1, tile.columns // 2)
    rows = product.images * product.groups * _whole(product.rows, tile.rows)
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
        float(rows * _whole(product.columns, half) * depth),
        _padded(primitive),
        _beyond((moved + weights) * width),
        outputs * strips * tile.columns * depth if few else 0.0,
    )


def _padded(primitive: Conv | ConvTranspose | Linear) -> float:
    """Return the number of values that are copied beforehand."""
    padded = isinstance(primitive, Conv) and primitive.padded_shape != primitive.in_shape
    return float(primitive.in_elements) if padded else 0.0


def _memory_bound(primitive: Permute | Reshape | Elementwise | Pool | Copy, width: int) -> tuple[float, ...]:
    moved = float(primitive.in_elements + primitive.out_elements)
    beyond = _beyond(moved * width)
    match primitive:
        case Permute(shape, order):
            values = float(primitive.in_elements)
            aliased = values if shape[-1] * width % _ALIASING_BYTES == 0 else 0.0
            return (1.0, values, moved / min(shape[-1], 64), aliased, values * len(order), beyond)
        case Reshape(before, after):
            return (1.0, *_transposed(before, width), *_transposed(after, width), beyond)
        case Elementwise(function, shape, operands):
            # A value for each channel is read again at every pixel.
            pixels = prod(shape) / shape[1] if function == "add" and operands == 1 else 0.0
            return (1.0, moved, pixels, beyond)
        case Pool():
            pixels = float(primitive.in_shape[0] * prod(primitive.out_spatial))
            taps = prod(primitive.kernel)
            return (1.0, primitive.out_elements * taps, pixels * taps, pixels, moved, beyond)
        case Copy(shape, parts):
            return (1.0, parts * prod(shape) / shape[1], moved, beyond)


def _transposed(shape: tuple[int, int, int], width: int) -> tuple[float, float, float]:
    """Return the values that a change of layout moves, the runs they are in, and those at colliding addresses."""
    _, channels, pixels = shape
    if min(channels, pixels) == 1:
        return 0.0, 0.0, 0.0
    values = float(prod(shape))
    return values, values / min(channels, pixels, 64), values if pixels * width % _ALIASING_BYTES == 0 else 0.0


def _whole(size: int, part: int) -> int:
    return ceil(size / part) * part


def _beyond(size: float) -> float:
    return max(0.0, size - _CACHE_BYTES)
