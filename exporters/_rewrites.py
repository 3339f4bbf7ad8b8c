"""Operators of ATen written with plainer ones, for converters that do not know them, or know them wrongly.

Each function has the arguments of its operator. It returns ``NotImplemented`` where the operator is plain already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, isclose, pi, prod
from typing import Any

import torch
from torch import Tensor

Rewrite = Callable[..., Any]
aten = torch.ops.aten
# log(1 + exp(-x)) is below half a unit in the last place of x from here on.
_NEGLIGIBLE = 15


def same(x: Tensor) -> Tensor:
    """The value itself."""
    return x


def added(x: Tensor, other: Any, *, alpha: float = 1) -> Any:
    """``x + alpha * other``: Core ML drops ``alpha``, and LiteRT does not take it."""
    return NotImplemented if alpha == 1 else x + other * alpha


def subtracted(x: Tensor, other: Any, *, alpha: float = 1) -> Any:
    """``x - alpha * other``."""
    return NotImplemented if alpha == 1 else x - other * alpha


def subtracted_from(x: Tensor, other: Any, alpha: float = 1) -> Any:
    """``other - alpha * x``."""
    return -(x if alpha == 1 else x * alpha) + other


def matrix_added(x: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """``beta * x + alpha * left @ right``."""
    multiplied = torch.matmul(left, right)
    scaled = multiplied if alpha == 1 else multiplied * alpha
    return scaled + (x if beta == 1 else x * beta)


def product_added(x: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    """``x + value * left * right``."""
    return x + (left * right if value == 1 else left * right * value)


def quotient_added(x: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    """``x + value * left / right``."""
    return x + (left / right if value == 1 else left / right * value)


def interpolated(x: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``x + weight * (end - x)``."""
    moved: Tensor = x + (end - x) * weight
    return moved


def both(x: Tensor, other: Tensor) -> Any:
    """``x & other`` of booleans."""
    return torch.logical_and(x, other) if x.dtype == torch.bool else NotImplemented


def either(x: Tensor, other: Tensor) -> Any:
    """``x | other`` of booleans."""
    return torch.logical_or(x, other) if x.dtype == torch.bool else NotImplemented


def one_of(x: Tensor, other: Tensor) -> Any:
    """``x ^ other`` of booleans."""
    return torch.logical_xor(x, other) if x.dtype == torch.bool else NotImplemented


def gaussian(x: Tensor, *, approximate: str = "none") -> Any:
    """``gelu`` approximated by a hyperbolic tangent: Core ML's converter passes over it."""
    if approximate == "none":
        return NotImplemented
    return x * 0.5 * (torch.tanh((x + x * x * x * 0.044715) * (2 / pi) ** 0.5) + 1)


def smooth_maximum(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    """``softplus`` that is linear from a threshold on which shows in float32."""
    if threshold >= _NEGLIGIBLE:
        return NotImplemented
    scaled = x * beta
    return torch.where(scaled > threshold, x, torch.nn.functional.softplus(scaled) / beta)


def sorted_largest(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """``topk`` in order: Core ML guarantees none for the other."""
    return NotImplemented if sorted else torch.topk(x, k, dim, largest, True)


def running_sum(x: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Any:
    """``cumsum`` with its axis counted from the first."""
    return NotImplemented if dim >= -1 else torch.cumsum(x, dim % x.ndim, dtype=dtype)


def normalized_volumes(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """``instance_norm`` over three axes, as over one: MIL defines it for two at most."""
    if x.ndim != 5 or not use_input_stats:
        return NotImplemented
    given = (weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn_enabled)
    return torch.instance_norm(x.flatten(2), *given).reshape(x.shape)


def truncated(x: Tensor) -> Tensor:
    """Round towards zero."""
    return torch.where(x < 0, torch.ceil(x), torch.floor(x))


def clipped(x: Tensor, min_val: float = -1, max_val: float = 1) -> Any:
    """``hardtanh``, with limits that are no integers."""
    if isinstance(min_val, float) and isinstance(max_val, float):
        return NotImplemented
    return torch.clamp(x, float(min_val), float(max_val))


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``."""
    return torch.relu(x) + torch.clamp((torch.exp(torch.clamp(x, max=0.0) / alpha) - 1) * alpha, max=0.0)


def log_sigmoid(x: Tensor) -> Tensor:
    """``min(x, 0) - log(1 + exp(-|x|))``."""
    return torch.clamp(x, max=0.0) - torch.log(torch.exp(-torch.abs(x)) + 1)


def leaky_in_evaluation(
    x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, generator: Any = None
) -> Any:
    """``rrelu`` in evaluation mode: a slope in the middle."""
    del generator
    return NotImplemented if training else torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root of the mean square over the last axes."""
    axes = list(range(-len(normalized_shape), 0))
    small = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + small)
    return scaled if weight is None else scaled * weight


def shuffled_channels(x: Tensor, groups: int) -> Tensor:
    """Transpose channels ``(groups, channels / groups)``."""
    batch, channels, *spatial = x.shape
    apart = x.reshape(batch, groups, channels // groups, *spatial)
    return apart.transpose(1, 2).reshape(x.shape)


def new_ones(x: Tensor, size: Sequence[int], **kwargs: Any) -> Tensor:
    """Ones."""
    return torch.full(list(size), 1, dtype=kwargs.get("dtype") or x.dtype)


def padded(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """``F.pad``: circular padding and that of more than two axes are joined from slices, negative padding cuts off."""
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


def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Compute the whole result, with holes in the kernel filled, then cut it: LiteRT takes no other kinds."""
    dims = weight.ndim - 2
    cuts, extra, holes = (_each(given, dims) for given in (padding, output_padding, dilation))
    if not any(extra) and max(holes) == 1:
        return NotImplemented
    for axis in range(dims):
        if holes[axis] > 1:
            weight = _spread(weight, 2 + axis, holes[axis])
    convolve = (aten.conv_transpose1d, aten.conv_transpose2d.input, aten.conv_transpose3d.input)[dims - 1]
    beyond = any(more > cut for more, cut in zip(extra, cuts, strict=True))
    whole = convolve(
        x, weight, None if beyond else bias, _each(stride, dims), [0] * dims, [0] * dims, groups, [1] * dims
    )
    for axis, (cut, more) in enumerate(zip(cuts, extra, strict=True), start=2):
        length = whole.shape[axis] - 2 * cut + more
        whole = whole.narrow(axis, cut, min(length, whole.shape[axis] - cut))
        if length > whole.shape[axis]:
            ends = [0, 0] * (whole.ndim - 1 - axis) + [0, length - whole.shape[axis]]
            whole = torch.nn.functional.pad(whole, ends)
    if beyond and bias is not None:
        whole = whole + bias.reshape(-1, *[1] * dims)
    return whole


def _spread(weight: Tensor, axis: int, step: int) -> Tensor:
    """Put ``step - 1`` zeros between the values of an axis."""
    size = weight.shape[axis]
    apart = weight.unsqueeze(axis + 1)
    zeros = apart.new_zeros([step - 1 if at == axis + 1 else n for at, n in enumerate(apart.shape)])
    return torch.cat([apart, zeros], axis + 1).flatten(axis, axis + 1).narrow(axis, 0, (size - 1) * step + 1)


def _each(given: Any, axes: int) -> list[int]:
    values = [int(value) for value in given] if isinstance(given, list | tuple) else [int(given)]
    return values * axes if len(values) == 1 else values


def convolution_that_keeps_the_size(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A convolution with ``padding="same"`` or ``"valid"``, with the padding as a number."""
    dims = weight.ndim - 2
    totals = [hole * (size - 1) for hole, size in zip(_each(dilation, dims), weight.shape[2:], strict=True)]
    totals = totals if padding == "same" else [0] * dims
    if any(total % 2 for total in totals):
        ends = [amount for total in reversed(totals) for amount in (total // 2, total - total // 2)]
        x, totals = torch.nn.functional.pad(x, ends), [0] * dims
    convolve = (torch.conv1d, torch.conv2d)[dims - 1]
    cuts = [total // 2 for total in totals]
    return convolve(x, weight, bias, _each(stride, dims), cuts, _each(dilation, dims), groups)


def convolution_over_three_axes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A sum of convolutions over two axes, one for each tap of the first axis, which moves into the batch."""
    if isinstance(padding, str):
        kernel = [hole * (size - 1) for hole, size in zip(_each(dilation, 3), weight.shape[2:], strict=True)]
        total = kernel if padding == "same" else [0, 0, 0]
        ends = [amount for each in reversed(total) for amount in (each // 2, each - each // 2)]
        x, padding = torch.nn.functional.pad(x, ends), 0
    strides, cuts, holes = (_each(given, 3) for given in (stride, padding, dilation))
    if cuts[0]:
        x = torch.nn.functional.pad(x, [0, 0, 0, 0, cuts[0], cuts[0]])
    batch, channels, depth, *image = x.shape
    depth_out = (depth - holes[0] * (weight.shape[2] - 1) - 1) // strides[0] + 1
    total_: Tensor | None = None
    for tap in range(weight.shape[2]):
        last = tap * holes[0] + strides[0] * (depth_out - 1) + 1
        taken = x[:, :, tap * holes[0] : last : strides[0]].transpose(1, 2)
        part = torch.conv2d(
            taken.reshape(batch * depth_out, channels, *image),
            weight[:, :, tap],
            bias if tap == 0 else None,
            strides[1:],
            cuts[1:],
            holes[1:],
            groups,
        )
        total_ = part if total_ is None else total_ + part
    assert total_ is not None
    return total_.reshape(batch, depth_out, *total_.shape[1:]).transpose(1, 2)


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
    kernel, cuts = _each(kernel_size, 2), _each(padding, 2)
    steps = _each(stride, 2) if stride else kernel
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
    kernel, cuts = _each(kernel_size, 1), _each(padding, 1)
    steps = _each(stride, 1) if stride else kernel
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
    kernel, cuts, holes = (_each(given, 2) for given in (kernel_size, padding, dilation))
    steps = _each(stride, 2) if stride else kernel
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
    cuts = _each(padding, 3)
    if ceil_mode or divisor_override is not None or (any(cuts) and not count_include_pad):
        return NotImplemented
    kernel = _each(kernel_size, 3)
    steps = _each(stride, 3) if stride else kernel
    means = _by_image(x, lambda image: torch.nn.functional.avg_pool2d(image, kernel[1:], steps[1:], cuts[1:]))
    parts = _windows(torch.nn.functional.pad(means, [0, 0, 0, 0, cuts[0], cuts[0]]), kernel[0], steps[0])
    return sum(parts[1:], parts[0]) / kernel[0]


def largest_of_volumes(
    x: Tensor, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """``max_pool3d``: over two axes first, then over the first."""
    kernel, cuts = _each(kernel_size, 3), _each(padding, 3)
    if ceil_mode or max(_each(dilation, 3)) > 1 or cuts[0]:
        return NotImplemented
    steps = _each(stride, 3) if stride else kernel
    largest = _by_image(x, lambda image: torch.nn.functional.max_pool2d(image, kernel[1:], steps[1:], cuts[1:]))
    first, *others = _windows(largest, kernel[0], steps[0])
    for part in others:
        first = torch.maximum(first, part)
    return first


def _by_image(x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    batched = x if x.ndim == 5 else x[None]
    batch, channels, depth, *image = batched.shape
    pooled = pool(batched.reshape(batch, channels * depth, *image))
    apart = pooled.reshape(batch, channels, depth, *pooled.shape[2:])
    return apart if x.ndim == 5 else apart[0]


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
    wide = _by_image(
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


def sliding(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """``Tensor.unfold``: windows along an axis, as a last axis."""
    axis = dimension % x.ndim
    count = (x.shape[axis] - size) // step + 1
    return torch.stack([x.narrow(axis, start * step, size) for start in range(count)], axis).movedim(axis + 1, -1)


def variance(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """The variance over some axes, or all."""
    axes = list(range(x.ndim)) if not dim else list(dim)
    count = prod(x.shape[axis] for axis in axes)
    apart = x - x.mean(axes, keepdim=True)
    return (apart * apart).sum(axes, keepdim=keepdim) / (count - (1 if correction is None else correction))


def deviation(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    """The root of the variance."""
    return torch.sqrt(variance(x, dim, correction=correction, keepdim=keepdim))


def variance_and_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    axes = list(range(x.ndim)) if not dim else list(dim)
    return variance(x, dim, correction=correction, keepdim=keepdim), x.mean(axes, keepdim=keepdim)


def cosine(x: Tensor, other: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors."""
    norms = [torch.sqrt((each * each).sum(dim)).clamp_min(eps) for each in (x, other)]
    return (x * other).sum(dim) / (norms[0] * norms[1])


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """``softmax(q k^T * scale + mask) v``, in evaluation mode."""
    del dropout_p
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (each.repeat_interleave(repeats, -3) for each in (key, value))
    by = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * by, key.transpose(-2, -1))
    if is_causal:
        lowest = torch.finfo(query.dtype).min
        scores = scores + torch.full(scores.shape[-2:], lowest, dtype=query.dtype).triu(1)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = (1 - attn_mask.to(query.dtype)) * torch.finfo(query.dtype).min
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(-1), value)
