"""Images of another size."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isclose
from typing import Any

import torch
from torch import Tensor

from ._axes import by_image


def nearest_of_no_multiple(x: Tensor, output_size: Any, scale_factors: Any) -> Any:
    """``upsample_nearest`` by factors that are no whole numbers: which point Core ML then takes is not documented."""
    sizes = [_resized(size, place, output_size, scale_factors) for place, size in enumerate(x.shape[2:])]
    if all(
        out % size == 0 and isclose(out * scale, size) for (out, scale), size in zip(sizes, x.shape[2:], strict=True)
    ):
        return NotImplemented
    for axis, (out, scale) in enumerate(sizes, start=2):
        size = x.shape[axis]
        # Over two axes PyTorch passes over the factor where a size stays or doubles, over one it does not.
        step = size / out if len(sizes) == 2 and out in (size, 2 * size) else scale
        places = torch.clamp(torch.floor(torch.arange(out, dtype=torch.float32) * step), max=size - 1)
        x = x.index_select(axis, places.to(torch.int32))
    return x


def linear_by_factors(x: Tensor, output_size: Any, align_corners: bool, scale_factors: Any) -> Any:
    """``upsample_linear1d`` or ``upsample_bilinear2d`` by factors that leave a fraction: Core ML rounds the factors."""
    if align_corners or output_size is not None:
        return NotImplemented
    sizes = [_resized(size, place, None, scale_factors) for place, size in enumerate(x.shape[2:])]
    if all(isclose(out * scale, size) for (out, scale), size in zip(sizes, x.shape[2:], strict=True)):
        return NotImplemented
    for axis, (out, scale) in enumerate(sizes, start=2):
        size = x.shape[axis]
        if out == size:
            continue  # PyTorch leaves such an axis as it is
        places = torch.clamp((torch.arange(out, dtype=x.dtype) + 0.5) * scale - 0.5, 0, size - 1)
        apart = torch.abs(places - torch.arange(size, dtype=x.dtype).unsqueeze(1))
        mixed = torch.clamp(1 - apart, min=0)  # each new point is made of the two beside it
        x = torch.matmul(x.transpose(axis, -1), mixed).transpose(axis, -1)
    return x


def nearest(x: Tensor, output_size: Any, scale_factors: Any) -> Tensor:
    """``upsample_nearest`` over any axes: each is repeated, or indexed."""
    return _indexed(x, output_size, scale_factors, 0.0)


def nearest_exact(x: Tensor, output_size: Any, scale_factors: Any) -> Tensor:
    """``upsample_nearest_exact``: places are the centres of pixels."""
    return _indexed(x, output_size, scale_factors, 0.5)


def _indexed(x: Tensor, output_size: Any, scale_factors: Any, centre: float) -> Tensor:
    for place in range(x.ndim - 2):
        axis, size = 2 + place, x.shape[2 + place]
        out, scale = _resized(size, place, output_size, scale_factors)
        chosen = [min(size - 1, int((index + centre) * scale)) for index in range(out)]
        x = _resampled(x, axis, [[(each, 1.0)] for each in chosen])
    return x


def _resized(size: int, place: int, output_size: Any, scale_factors: Any) -> tuple[int, float]:
    """Return an axis's new size, and the distance of new pixels in old ones."""
    if output_size is not None:
        return int(output_size[place]), size / int(output_size[place])
    return int(size * scale_factors[place]), 1 / scale_factors[place]


def _resampled(x: Tensor, axis: int, rows: Sequence[Sequence[tuple[int, float]]]) -> Tensor:
    """Return for each row the weighted sum of values along an axis."""
    size = x.shape[axis]
    times = len(rows) // size
    if x.ndim <= 4 and times and rows == [[(index // times, 1.0)] for index in range(size * times)]:
        shape = list(x.shape)
        return x.unsqueeze(axis + 1).expand(*shape[: axis + 1], times, *shape[axis + 1 :]).flatten(axis, axis + 1)
    made = []
    for row in rows:
        parts = [
            x.narrow(axis, index, 1) * weight if weight != 1 else x.narrow(axis, index, 1) for index, weight in row
        ]
        made.append(sum(parts[1:], parts[0]))
    return torch.cat(made, axis) if len(made) > 1 else made[0]


def trilinear(x: Tensor, output_size: Any, align_corners: bool, scale_factors: Any) -> Tensor:
    """``upsample_trilinear3d``: over two axes at once, then over the first."""
    sizes = [_resized(n, place, output_size, scale_factors)[0] for place, n in enumerate(x.shape[2:])]
    wide = by_image(
        x, lambda image: torch.nn.functional.interpolate(image, sizes[1:], mode="bilinear", align_corners=align_corners)
    )
    size, (out, scale) = x.shape[2], _resized(x.shape[2], 0, output_size, scale_factors)
    rows = []
    for index in range(out):
        place = index * (size - 1) / max(1, out - 1) if align_corners else max(0.0, (index + 0.5) * scale - 0.5)
        low = min(int(place), size - 1)
        high = min(low + 1, size - 1)
        rows.append([(low, 1.0)] if low in (place, high) else [(low, 1 - place + low), (high, place - low)])
    return _resampled(wide, 2, rows)


def bicubic(x: Tensor, output_size: Any, align_corners: bool, scale_factors: Any) -> Tensor:
    """``upsample_bicubic2d``, an axis at a time (Keys 1981, with a = -0.75 as PyTorch has it)."""
    for place in range(2):
        size = x.shape[2 + place]
        out, scale = _resized(size, place, output_size, scale_factors)
        rows = []
        for index in range(out):
            at = index * (size - 1) / max(1, out - 1) if align_corners else (index + 0.5) * scale - 0.5
            below = floor(at)
            weights: dict[int, float] = {}
            for tap in range(-1, 3):
                source = min(max(below + tap, 0), size - 1)
                weights[source] = weights.get(source, 0.0) + _cubic(abs(at - below - tap))
            rows.append([(source, weight) for source, weight in weights.items() if weight != 0])
        x = _resampled(x, 2 + place, rows)
    return x


def _cubic(distance: float, a: float = -0.75) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a if distance < 2 else 0.0
