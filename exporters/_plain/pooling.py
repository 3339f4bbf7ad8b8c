"""Pools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ._axes import by_image, each_axis


def mean_of_windows(
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """``avg_pool2d`` with a divisor of its own, or with windows beyond the padding, which Core ML counts otherwise."""
    kernel, cuts = each_axis(kernel_size, 2), each_axis(padding, 2)
    steps = each_axis(stride, 2) if stride else kernel
    area = prod(kernel)
    if divisor_override is not None:
        means = torch.nn.functional.avg_pool2d(x, kernel, steps, cuts, ceil_mode, True)
        return NotImplemented if ceil_mode else means * (area / divisor_override)
    if not ceil_mode:
        return NotImplemented
    beyond = [_beyond(size, k, s, c) for size, k, s, c in zip(x.shape[-2:], kernel, steps, cuts, strict=True)]
    if not any(beyond):
        return torch.nn.functional.avg_pool2d(x, kernel, steps, cuts, False, count_include_pad)
    ends = [cuts[1], cuts[1] + beyond[1], cuts[0], cuts[0] + beyond[0]]
    sums = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, ends), kernel, steps)
    inside = torch.ones(1, 1, *x.shape[-2:], dtype=x.dtype)
    counted = [cuts[1], cuts[1], cuts[0], cuts[0]] if count_include_pad else [0, 0, 0, 0]
    inside = torch.nn.functional.pad(inside, counted, value=1.0)
    left = [end - own for end, own in zip(ends, counted, strict=True)]
    share = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(inside, left), kernel, steps)
    return sums / share


def mean_of_spans(
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """``avg_pool1d`` with windows beyond the padding, as a row of an image."""
    kernel, cuts = each_axis(kernel_size, 1), each_axis(padding, 1)
    steps = each_axis(stride, 1) if stride else kernel
    if not ceil_mode:
        return NotImplemented
    means: Tensor = mean_of_windows(
        x.unsqueeze(-2), [1, *kernel], [1, *steps], [0, *cuts], ceil_mode, count_include_pad
    ).squeeze(-2)
    return means


def largest_of_windows(
    x: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """``max_pool2d`` without windows that ``ceil_mode`` would put behind the image: Core ML keeps them."""
    kernel, cuts, holes = (each_axis(given, 2) for given in (kernel_size, padding, dilation))
    steps = each_axis(stride, 2) if stride else kernel
    spans = [hole * (size - 1) + 1 for size, hole in zip(kernel, holes, strict=True)]
    behind = [
        cut == 0 and -(-(size - span) // step) * step >= size
        for size, span, step, cut in zip(x.shape[-2:], spans, steps, cuts, strict=True)
    ]
    if not ceil_mode or not any(behind):
        return NotImplemented
    ends = [_beyond(size, s, step, c) for size, s, step, c in zip(x.shape[-2:], spans, steps, cuts, strict=True)]
    # What is put there repeats a value that the window has.
    whole = torch.nn.functional.pad(x, [0, ends[1], 0, ends[0]], mode="replicate") if any(ends) else x
    return torch.nn.functional.max_pool2d(whole, kernel, steps, cuts, holes, False)


def _beyond(size: int, kernel: int, step: int, cut: int) -> int:
    """Return the places that the last window of ``ceil_mode`` reaches beyond the padding."""
    count = -(-(size + 2 * cut - kernel) // step) + 1
    if (count - 1) * step >= size + cut:  # a window must begin within the input or the padding before it
        count -= 1
    return max(0, (count - 1) * step + kernel - size - 2 * cut)


def mean_of_volumes(
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """``avg_pool3d``: over two axes first, then over the first."""
    cuts = each_axis(padding, 3)
    if ceil_mode or divisor_override is not None or (any(cuts) and not count_include_pad):
        return NotImplemented
    kernel = each_axis(kernel_size, 3)
    steps = each_axis(stride, 3) if stride else kernel
    means = by_image(x, lambda image: torch.nn.functional.avg_pool2d(image, kernel[1:], steps[1:], cuts[1:]))
    parts = _windows(torch.nn.functional.pad(means, [0, 0, 0, 0, cuts[0], cuts[0]]), kernel[0], steps[0])
    return sum(parts[1:], parts[0]) / kernel[0]


def largest_of_volumes(
    x: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """``max_pool3d``: over two axes first, then over the first."""
    kernel, cuts = each_axis(kernel_size, 3), each_axis(padding, 3)
    if ceil_mode or max(each_axis(dilation, 3)) > 1 or cuts[0]:
        return NotImplemented
    steps = each_axis(stride, 3) if stride else kernel
    largest = by_image(x, lambda image: torch.nn.functional.max_pool2d(image, kernel[1:], steps[1:], cuts[1:]))
    first, *others = _windows(largest, kernel[0], steps[0])
    for part in others:
        first = torch.maximum(first, part)
    return first


def _windows(x: Tensor, kernel: int, step: int) -> list[Tensor]:
    """Return for each tap the values that it meets along the axis before the last two."""
    count = (x.shape[-3] - kernel) // step + 1
    return [x[..., tap : tap + step * (count - 1) + 1 : step, :, :] for tap in range(kernel)]


def mean_of_parts(x: Tensor, output_size: Sequence[int]) -> Any:
    """``adaptive_avg_pool``: a mean where one value is left, a pool where the parts are alike, else part by part."""
    return _adaptive(x, output_size, lambda part, axes: part.mean(axes, keepdim=True))


def _adaptive(x: Tensor, output_size: Sequence[int], reduced: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    dims = len(output_size)
    sizes = x.shape[-dims:]
    axes = list(range(-dims, 0))
    if all(out == 1 for out in output_size):
        return reduced(x, axes)
    # An axis at a time: means of equal weights, and the largest, come out the same.
    for axis, size, out in zip(axes, sizes, output_size, strict=True):
        starts = [(place * size) // out for place in range(out)]
        ends = [-(-((place + 1) * size) // out) for place in range(out)]
        parts = [reduced(x.narrow(axis, s, e - s), [axis]) for s, e in zip(starts, ends, strict=True)]
        x = torch.cat(parts, axis) if len(parts) > 1 else parts[0]
    return x


def largest_of_parts(x: Tensor, output_size: Sequence[int]) -> Any:
    """``adaptive_max_pool``, whose indices must not be used."""
    values = _adaptive(x, output_size, lambda part, axes: part.amax(axes, keepdim=True))
    return values, torch.zeros(values.shape, dtype=torch.long)
