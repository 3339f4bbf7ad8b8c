"""Arithmetic, activations, norms and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, prod
from typing import Any

import torch
from torch import Tensor

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


def rms_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root of the mean square over the last axes."""
    axes = list(range(-len(normalized_shape), 0))
    small = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt((x * x).mean(axes, keepdim=True) + small)
    return scaled if weight is None else scaled * weight


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
