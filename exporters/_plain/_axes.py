"""What several operators ask of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def each_axis(given: Any, axes: int) -> list[int]:
    """Return a value for each axis, of one for all or a list."""
    values = [int(value) for value in given] if isinstance(given, list | tuple) else [int(given)]
    return values * axes if len(values) == 1 else values


def by_image(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """Pool the last two axes of volumes ``([batch,] channels, depth, height, width)``, depth by depth."""
    batched = x if x.ndim == 5 else x[None]
    batch, channels, depth, *image = batched.shape
    pooled = pool(batched.reshape(batch, channels * depth, *image))
    apart = pooled.reshape(batch, channels, depth, *pooled.shape[2:])
    return apart if x.ndim == 5 else apart[0]
