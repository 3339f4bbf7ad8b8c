"""MIL operations of neural networks, in the table of ``_mil_ops``: convolutions, pools, norms, images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from ._operations import OpenError, operation

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
Pairs = list[tuple[int, int]]


def _sizes(value: Tensor | None, axes: int) -> list[int]:
    return [1] * axes if value is None else value.tolist()


def _halves(total: int, pad_type: str) -> tuple[int, int]:
    """Split a padding in two; the odd element goes to the end, with ``same_lower`` to the start."""
    smaller = total // 2
    return (total - smaller, smaller) if pad_type == "same_lower" else (smaller, total - smaller)


def _padding(
    pad_type: str, pad: Tensor | None, shape: Sequence[int], windows: Sequence[int], strides: Sequence[int]
) -> Pairs:
    """Return what is put before and after each spatial axis; ``windows`` are the extents of the dilated kernel."""
    if pad_type == "valid" or (pad_type == "custom" and pad is None):
        return [(0, 0) for _ in shape]
    if pad_type == "custom" and pad is not None:
        return [(before, after) for before, after in pad.reshape(-1, 2).tolist()]
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"pad_type must be valid, same, same_lower or custom, got {pad_type!r}")
    totals = (
        max(0, (math.ceil(size / stride) - 1) * stride + window - size)
        for size, window, stride in zip(shape, windows, strides, strict=True)
    )
    return [_halves(total, pad_type) for total in totals]


def _padded(x: Tensor, pairs: Pairs, value: float = 0.0) -> Tensor:
    return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=value)


def _dilated(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _along_channels(value: Tensor, x: Tensor) -> Tensor:
    return value.reshape(1, -1, *(1,) * (x.ndim - 2))


@operation("conv")
def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    axes = x.ndim - 2
    steps, dilation = _sizes(strides, axes), _sizes(dilations, axes)
    pairs = _padding(pad_type, pad, x.shape[2:], _dilated(weight.shape[2:], dilation), steps)
    return _CONV[axes](_padded(x, pairs), weight, bias, steps, 0, dilation, int(groups))


@operation("conv_transpose")
def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: int = 1,
) -> Tensor:
    axes = x.ndim - 2
    steps, dilation = _sizes(strides, axes), _sizes(dilations, axes)
    whole = _CONV_TRANSPOSE[axes](x, weight, None, steps, 0, 0, int(groups), dilation)
    # The padding of the convolution that this one transposes is cropped.
    custom = pad if pad_type == "custom" else None
    crops = [(0, 0)] * axes if custom is None else [(before, after) for before, after in custom.reshape(-1, 2).tolist()]
    if pad_type == "same":
        beyond = [full - size * step for full, size, step in zip(whole.shape[2:], x.shape[2:], steps, strict=True)]
        if min(beyond) < 0:
            raise OpenError("MIL does not say where pad_type same fills up kernels smaller than their strides")
        crops = [_halves(amount, pad_type) for amount in beyond]
    elif pad_type not in ("valid", "custom"):
        raise OpenError(f"MIL defines pad_type valid, custom and same for it, got {pad_type!r}")
    cropped = _padded(whole, [(-before, -after) for before, after in crops])
    if output_shape is not None and list(cropped.shape) != output_shape.tolist():
        raise OpenError(
            f"MIL does not say where an output_shape other than {list(cropped.shape)} is cropped, "
            f"got {output_shape.tolist()}"
        )
    return cropped if bias is None else cropped + _along_channels(bias, x)


def _pool_pairs(
    x: Tensor, kernel: list[int], steps: list[int], pad_type: str, pad: Tensor | None, ceil_mode: bool
) -> Pairs:
    """Return the padding, with what ``ceil_mode`` adds at the end so that the last window is whole."""
    if pad_type == "same_lower" and x.ndim == 3:
        raise OpenError("Core ML is reported to be wrong over one spatial axis with pad_type same_lower")
    declared = _padding(pad_type, pad, x.shape[2:], kernel, steps)
    if not ceil_mode:
        return declared
    if x.ndim > 4 or pad_type.startswith("same") or any(before != after for before, after in declared):
        raise ValueError(
            f"MIL has ceil_mode over one or two axes with equal padding before and after, got {len(declared)} axes, "
            f"pad_type {pad_type} and {declared}"
        )
    pairs = []
    for size, (before, after), window, step in zip(x.shape[2:], declared, kernel, steps, strict=True):
        room = size + before + after - window
        windows = math.ceil(room / step)
        if windows * step >= size + before:
            if not before:
                raise OpenError("with ceil_mode a window lies beyond the input, and MIL does not say what it gives")
            windows -= 1
        pairs.append((before, after + max(0, windows * step - room)))
    return pairs


@operation("max_pool")
def _max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    kernel, steps = kernel_sizes.tolist(), _sizes(strides, x.ndim - 2)
    pairs = _pool_pairs(x, kernel, steps, pad_type, pad, bool(ceil_mode))
    return _MAX_POOL[x.ndim - 2](_padded(x, pairs, -math.inf), kernel, steps)


@operation("avg_pool")
def _avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    kernel, steps = kernel_sizes.tolist(), _sizes(strides, x.ndim - 2)
    pairs = _pool_pairs(x, kernel, steps, pad_type, pad, bool(ceil_mode))
    pool = _AVG_POOL[x.ndim - 2]
    means: Tensor = pool(_padded(x, pairs), kernel, steps)
    if not exclude_padding_from_average:
        # What ceil_mode adds is padding and counts like it, other than in PyTorch (coremltools' issue 2772).
        return means
    return means / pool(_padded(torch.ones_like(x[:1, :1]), pairs), kernel, steps)


@operation("l2_pool")
def _l2_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    mean = _avg_pool(x.square(), kernel_sizes, pad_type, strides, pad, False, ceil_mode)
    return (mean * kernel_sizes.prod()).sqrt()


def _scaled(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta


def _normalized(x: Tensor, axes: tuple[int, ...], epsilon: float | Tensor) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)


@operation("batch_norm")
def _batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float | Tensor = 1e-5,
) -> Tensor:
    gamma, beta = (None if value is None else _along_channels(value, x) for value in (gamma, beta))
    scale = torch.rsqrt(variance + epsilon)
    return _scaled((x - _along_channels(mean, x)) * _along_channels(scale, x), gamma, beta)


@operation("instance_norm")
def _instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float | Tensor = 1e-5
) -> Tensor:
    if x.ndim > 4:
        raise OpenError(f"MIL defines it over one or two spatial axes, got {x.ndim - 2}")
    gamma, beta = (None if value is None else _along_channels(value, x) for value in (gamma, beta))
    return _scaled(_normalized(x, tuple(range(2, x.ndim)), epsilon), gamma, beta)


@operation("layer_norm")
def _layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float | Tensor = 1e-5,
) -> Tensor:
    over = {axis % x.ndim for axis in (range(x.ndim) if axes is None else axes.tolist())}
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = (None if value is None else value.reshape(shape) for value in (gamma, beta))
    return _scaled(_normalized(x, tuple(over), epsilon), gamma, beta)


@operation("l2_norm")
def _l2_norm(x: Tensor, epsilon: float | Tensor = 1e-6) -> Tensor:
    return x * torch.rsqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


@operation("local_response_norm")
def _local_response_norm(x: Tensor, size: Tensor, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    if int(size) % 2 == 0 or x.ndim != 4:
        # coremltools' test with Core ML has values of rank 3 that are normalised over the first axis.
        raise OpenError(f"Core ML's window is known for rank 4 and odd sizes alone, got rank {x.ndim} and {int(size)}")
    return F.local_response_norm(x, int(size), float(alpha), float(beta), float(k))


@operation("softmax")
def _softmax(x: Tensor, axis: int = -1) -> Tensor:
    return x.softmax(int(axis))


@operation("leaky_relu")
def _leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


@operation("prelu")
def _prelu(x: Tensor, alpha: Tensor) -> Tensor:
    if x.ndim != 4 and not torch.equal(alpha, alpha[:1].expand_as(alpha)):
        raise ValueError(f"Core ML takes other slopes than one in rank 4 alone, got rank {x.ndim}")
    return torch.where(x > 0, x, _along_channels(alpha, x) * x)


@operation("elu")
def _elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * torch.expm1(x))


@operation("gelu")
def _gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise ValueError(f"MIL knows no mode {mode!r}")
    return F.gelu(x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


@operation("sigmoid_hard")
def _sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@operation("clamped_relu")
def _clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(_leaky_relu(x, alpha), beta)


@operation("linear_activation")
def _linear_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha * x + beta


@operation("scaled_tanh")
def _scaled_tanh(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha * torch.tanh(beta * x)


@operation("softplus_parametric")
def _softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _along_channels(alpha, x) * F.softplus(_along_channels(beta, x) * x)


@operation("thresholded_relu")
def _thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= alpha, x, 0.0)


def _grid(size: int, target: int, sampling_mode: str) -> Tensor:
    """Return where ``target`` samples lie on an axis of ``size`` points; shape (target,), float64 in [0, size - 1]."""
    steps = torch.arange(target, dtype=torch.float64)
    if sampling_mode == "ALIGN_CORNERS" and target == 1:
        points = steps + (size - 1) / 2
    elif sampling_mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = steps * (size - 1) / max(1, target - 1)
    elif sampling_mode == "DEFAULT":
        points = steps * size / target
    elif sampling_mode == "OFFSET_CORNERS":
        points = (steps + 0.5) * max(1, size - 1) / target
    elif sampling_mode == "UNALIGN_CORNERS":
        points = (steps + 0.5) * size / target - 0.5
    else:
        raise ValueError(f"sampling_mode {sampling_mode!r} is not known")
    return points.clamp(0, size - 1)


def _resized(x: Tensor, sizes: Sequence[int], sampling_mode: str) -> Tensor:
    """Resize the last ``len(sizes)`` axes, one after the other, with linear interpolation."""
    for axis, target in enumerate(sizes, start=x.ndim - len(sizes)):
        points = _grid(x.shape[axis], target, sampling_mode)
        below = points.floor().long()
        lower = x.index_select(axis, below)
        upper = x.index_select(axis, (below + 1).clamp(max=x.shape[axis] - 1))
        share = (points - below).float().reshape(-1, *(1,) * (x.ndim - axis - 1))
        x = lower + (upper - lower) * share
    return x


def _nearest(x: Tensor, axis: int, scale: Fraction) -> Tensor:
    """Resize an axis so that each new point is the one at or below its place, exact in floats too."""
    size = x.shape[axis]
    target = size * scale
    if target.denominator != 1:
        raise OpenError(f"Core ML's nearest point is known for whole numbers, got {size} times {float(scale):g}")
    return x.index_select(axis, torch.tensor([int(place / scale) for place in range(int(target))]))


def _upsampled_sizes(x: Tensor, height: float | Tensor, width: float | Tensor) -> list[int]:
    return [math.floor(x.shape[-2] * float(height)), math.floor(x.shape[-1] * float(width))]


@operation("upsample_nearest_neighbor")
def _upsample_nearest(
    x: Tensor, scale_factor_height: float | Tensor = 1, scale_factor_width: float | Tensor = 1
) -> Tensor:
    return _nearest(_nearest(x, -2, Fraction(float(scale_factor_height))), -1, Fraction(float(scale_factor_width)))


@operation("upsample_bilinear")
def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float | Tensor = 1,
    scale_factor_width: float | Tensor = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    centred = not align_corners if half_pixel_centers is None else bool(half_pixel_centers)
    if align_corners and centred:
        raise OpenError("MIL does not say what align_corners with half_pixel_centers is")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _resized(x, _upsampled_sizes(x, scale_factor_height, scale_factor_width), mode)


@operation("resize_nearest_neighbor")
def _resize_nearest(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    for axis, target in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        if target % x.shape[axis]:
            raise OpenError(f"Core ML's nearest point is known for multiples, got {x.shape[axis]} points and {target}")
        x = _nearest(x, axis, Fraction(target, x.shape[axis]))
    return x


@operation("resize_bilinear")
def _resize_bilinear(
    x: Tensor, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    return _resized(x, [int(target_size_height), int(target_size_width)], sampling_mode)


@operation("resize")
def _resize(
    x: Tensor,
    shape: Tensor,
    resized_dims: Tensor,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    count = int(resized_dims)
    # A zero stands for the size of that axis in x.
    sizes = [size or old for size, old in zip(shape.tolist()[-count:], x.shape[-count:], strict=True)]
    if interpolation_mode == "LINEAR":
        return _resized(x, sizes, sampling_mode)
    if any(old not in (1, size) for size, old in zip(sizes, x.shape[-count:], strict=True)):
        # coremltools' test with Core ML has 3 points of 2, the second from above: not those of the other operations.
        raise OpenError(f"Core ML's nearest point is known for axes of one point, got {tuple(x.shape)} and {sizes}")
    return x.expand(*x.shape[:-count], *sizes)


@operation("pixel_shuffle")
def _pixel_shuffle(x: Tensor, upscale_factor: Tensor) -> Tensor:
    return F.pixel_shuffle(x, int(upscale_factor))


@operation("pixel_unshuffle")
def _pixel_unshuffle(x: Tensor, downscale_factor: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, int(downscale_factor))


@operation("depth_to_space")
def _depth_to_space(x: Tensor, block_size: Tensor) -> Tensor:
    block = int(block_size)
    return F.pixel_shuffle(torch.unflatten(x, 1, (block * block, -1)).transpose(1, 2).flatten(1, 2), block)


@operation("space_to_depth")
def _space_to_depth(x: Tensor, block_size: Tensor) -> Tensor:
    block = int(block_size)
    blocks = torch.unflatten(F.pixel_unshuffle(x, block), 1, (-1, block * block))
    return blocks.transpose(1, 2).flatten(1, 2)
