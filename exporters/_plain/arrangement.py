"""Values that are padded, cut, ordered and put into other places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def padded(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """``F.pad``: circular padding and that of more than two axes are joined from slices, negative padding cuts off.

    Padding by nothing is left out: XNNPACK does not load it in int8.
    """
    if not any(pad):
        return x
    ends = [(axis, pad[2 * place], pad[2 * place + 1]) for place, axis in enumerate(_last_axes(len(pad) // 2))]
    if mode == "circular":
        for axis, before, after in ends:
            size = x.shape[axis]
            if before < 0 or after < 0:
                x = x.narrow(axis, max(0, -before), size - max(0, -before) - max(0, -after))
                size = x.shape[axis]
            parts = [x.narrow(axis, size - before, before)] if before > 0 else []
            parts += [x, *([x.narrow(axis, 0, after)] if after > 0 else [])]
            x = torch.cat(parts, axis) if len(parts) > 1 else x
        return x
    if mode != "constant" and any(pad[4:]):
        return _mirrored(x, ends, mode)
    if min(pad) >= 0:
        return NotImplemented
    for axis, before, after in ends:
        if before < 0 or after < 0:
            start = max(0, -before)
            x = x.narrow(axis, start, x.shape[axis] - start - max(0, -after))
    rest = [max(0, amount) for amount in pad]
    return torch.nn.functional.pad(x, rest, mode, value) if any(rest) else x


def _mirrored(x: Tensor, ends: Sequence[tuple[int, int, int]], mode: str) -> Tensor:
    """Pad by reflection or replication, an axis at a time: Core ML takes the last two alone."""
    for axis, before, after in ends:
        size = x.shape[axis]
        if mode == "reflect":
            first = [x.narrow(axis, 1, before).flip(axis)] if before else []
            last = [x.narrow(axis, size - 1 - after, after).flip(axis)] if after else []
        else:
            first, last = [x.narrow(axis, 0, 1)] * before, [x.narrow(axis, size - 1, 1)] * after
        x = torch.cat([*first, x, *last], axis) if first or last else x
    return x


def _last_axes(count: int) -> range:
    return range(-1, -count - 1, -1)


def shuffled_channels(x: Tensor, groups: int) -> Tensor:
    """Transpose channels ``(groups, channels / groups)``."""
    batch, channels, *spatial = x.shape
    apart = x.reshape(batch, groups, channels // groups, *spatial)
    return apart.transpose(1, 2).reshape(x.shape)


def sliding(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """``Tensor.unfold``: windows along an axis, as a last axis."""
    axis = dimension % x.ndim
    count = (x.shape[axis] - size) // step + 1
    return torch.stack([x.narrow(axis, start * step, size) for start in range(count)], axis).movedim(axis + 1, -1)


def sorted_largest(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``topk`` in order: Core ML guarantees none for the other."""
    return NotImplemented if sorted else torch.topk(x, k, dim, largest, True)


def new_ones(x: Tensor, size: Sequence[int], **kwargs: Any) -> Tensor:
    """Ones."""
    return torch.full(list(size), 1, dtype=kwargs.get("dtype") or x.dtype)
