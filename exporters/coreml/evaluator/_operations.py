"""MIL operations on tensors, each a small function in the table ``OPERATIONS``: arithmetic, reductions, shapes.

Requirements of a function in the table: its parameters are named and have defaults as in MIL; tensors arrive as
torch tensors (floats in float32, integers in int32), lists of tensors as lists, strings as ``str``; it returns a
tensor, or a tuple of them where MIL has several outputs. The evaluator rounds results to the declared type, so no
function looks at types.

What a function computes is MIL's own definition: coremltools' documentation of the operation, its NumPy functions,
Core ML's specification of the layer, and values that were published. It raises ``OpenError`` for what these leave
open or report as wrong, and ``ValueError`` for what Core ML is known to reject.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Operation = Callable[..., Any]
OPERATIONS: dict[str, Operation] = {}
_Function = TypeVar("_Function", bound=Operation)


class OpenError(Exception):
    """What Core ML makes of an operation is not known: MIL leaves it open, or it is reported to differ."""


def operation(name: str) -> Callable[[_Function], _Function]:
    """Put the decorated function into the table under MIL's name of the operation."""

    def register(function: _Function) -> _Function:
        OPERATIONS[name] = function
        return function

    return register


# torch's own functions have neither MIL's names of parameters nor, many of them, a signature at all.
def _register_unary(name: str, function: Callable[[Tensor], Tensor]) -> None:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    OPERATIONS[name] = apply


def _register_binary(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        if name in _OF_FLOATS:
            _require_floats(x)
        return function(x, y)

    OPERATIONS[name] = apply


def _register_reduction(name: str, function: Callable[..., Tensor]) -> None:
    def reduce(x: Tensor, axes: Tensor | None = None, keep_dims: bool = False) -> Tensor:
        if name in _OF_FLOATS:
            _require_floats(x)
        if axes is not None and not axes.numel():
            raise OpenError("MIL does not say what a reduction over no axis is")
        return function(x, tuple(range(x.ndim)) if axes is None else tuple(axes.tolist()), bool(keep_dims))

    OPERATIONS[name] = reduce


# MIL allows integers here, and does not say how the quotient or the root is rounded.
_OF_FLOATS = ("real_div", "reduce_l2_norm", "reduce_log_sum", "reduce_log_sum_exp", "reduce_mean")


def _require_floats(x: Tensor) -> None:
    if not x.is_floating_point():
        raise OpenError("MIL does not say how a result that is no integer is rounded, and the operands are integers")


def _product(x: Tensor, axes: Sequence[int], keep_dims: bool) -> Tensor:
    # torch.prod takes one axis; from the last to the first, the numbers of those to come stay as they are.
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep_dims)
    return x


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": lambda x: x,
    "logical_not": torch.logical_not,
    "relu": torch.relu,
    "relu6": F.relu6,
    "round": torch.round,
    "shape": lambda x: torch.tensor(x.shape),
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "silu": F.silu,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}
for _name, _unary in _UNARY.items():
    _register_unary(_name, _unary)

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": torch.div,
    "sub": torch.sub,
}
for _name, _binary in _BINARY.items():
    _register_binary(_name, _binary)

_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "reduce_l1_norm": lambda x, axes, keep: x.abs().sum(axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: x.square().sum(axes, keep).sqrt(),
    "reduce_log_sum": lambda x, axes, keep: x.sum(axes, keep).log(),
    "reduce_log_sum_exp": torch.logsumexp,
    "reduce_max": torch.amax,
    "reduce_mean": torch.mean,
    "reduce_min": torch.amin,
    "reduce_prod": _product,
    "reduce_sum": torch.sum,
    "reduce_sum_square": lambda x, axes, keep: x.square().sum(axes, keep),
}
for _name, _reduction in _REDUCTIONS.items():
    _register_reduction(_name, _reduction)


@operation("cast")
def _cast(x: Tensor, dtype: str) -> Tensor:  # noqa: ARG001 - the declared type of the output says the same
    return x


@operation("log")
def _log(x: Tensor, epsilon: float | Tensor = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


@operation("rsqrt")
def _rsqrt(x: Tensor, epsilon: float | Tensor = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


@operation("inverse")
def _inverse(x: Tensor, epsilon: float | Tensor = 1e-4) -> Tensor:
    return torch.reciprocal(x + epsilon)


@operation("clip")
def _clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.clip(x, alpha, beta)


@operation("threshold")
def _threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


@operation("select")
def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


@operation("reduce_argmax")
def _argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:  # noqa: ARG001
    return x.argmax(int(axis), bool(keep_dims))


@operation("reduce_argmin")
def _argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:  # noqa: ARG001
    return x.argmin(int(axis), bool(keep_dims))


@operation("argsort")
def _argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return x.argsort(dim=int(axis), descending=not ascending, stable=True)


@operation("topk")
def _topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",  # noqa: ARG001 - declared on the output too
) -> tuple[Tensor, ...]:
    count = x.shape[int(axis)] if int(k) == -1 else int(k)
    if not sort and count > 1:
        raise OpenError("MIL guarantees no order with sort=False")
    values, indices = x.topk(count, int(axis), largest=not ascending)
    return (values, indices) if return_indices else (values,)


@operation("cumsum")
def _cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    flipped = x.flip(int(axis)) if reverse else x
    total = flipped.cumsum(int(axis))
    total = total - flipped if exclusive else total
    return total.flip(int(axis)) if reverse else total


# coremltools tests Core ML's ranges with steps of 0.07 and more, and excludes one of a millionth as wrong.
_LEAST_STEP = 0.0699


@operation("fill")
def _fill(shape: Tensor, value: float | Tensor = 0.0) -> Tensor:
    return torch.as_tensor(value).expand(shape.tolist())


@operation("fill_like")
def _fill_like(ref_tensor: Tensor, value: float | Tensor = 0.0) -> Tensor:
    return torch.as_tensor(value).expand(ref_tensor.shape)


@operation("range_1d")
def _range(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    if step.is_floating_point() and abs(step.item()) < _LEAST_STEP:
        raise OpenError(f"Core ML is reported to miscount small steps, got {step.item():g}")
    return torch.arange(start.item(), end.item(), step.item())


@operation("one_hot")
def _one_hot(
    indices: Tensor, one_hot_vector_size: Tensor, axis: int = -1, on_value: float = 1, off_value: float = 0
) -> Tensor:
    axis = int(axis) % (indices.ndim + 1)
    numbers = torch.arange(int(one_hot_vector_size)).reshape(-1, *(1,) * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == numbers, on_value, off_value)


@operation("reshape")
def _reshape(x: Tensor, shape: Tensor) -> Tensor:
    # A zero stands for the size of that axis in x, counted from the last; for 1 where x has no such axis.
    ahead = [1] * (shape.numel() - x.ndim) + list(x.shape)
    aligned = ahead[len(ahead) - shape.numel() :]
    return x.reshape([size or old for size, old in zip(shape.tolist(), aligned, strict=True)])


@operation("flatten2d")
def _flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    return x.reshape(x.shape[: int(axis)].numel(), -1)


@operation("transpose")
def _transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(perm.tolist())


@operation("expand_dims")
def _expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    ndim = x.ndim + axes.numel()
    for axis in sorted(axis % ndim for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze")
def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    if axes is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in axes.tolist()):
        raise OpenError(f"Core ML is reported to fail on axes longer than 1, got {axes.tolist()} of {tuple(x.shape)}")
    return x.squeeze(tuple(axes.tolist()))


@operation("concat")
def _concat(values: list[Tensor], axis: Tensor, interleave: bool = False) -> Tensor:
    if interleave:
        joined = int(axis) % values[0].ndim
        return torch.stack(values, joined + 1).flatten(joined, joined + 1)
    return torch.cat([value.reshape(1) if value.ndim == 0 else value for value in values], int(axis))


@operation("stack")
def _stack(values: list[Tensor], axis: Tensor) -> Tensor:
    return torch.stack(values, int(axis))


@operation("split")
def _split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, split_sizes.tolist(), int(axis))
    if num_splits is None:
        raise ValueError("split must be told its number of parts, or their sizes; got neither")
    return torch.split(x, x.shape[int(axis)] // int(num_splits), int(axis))


@operation("tile")
def _tile(x: Tensor, reps: Tensor) -> Tensor:
    return x.tile(reps.tolist())


@operation("reverse")
def _reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.flip(tuple(range(x.ndim)) if axes is None else tuple(axes.tolist()))


@operation("slice_by_index")
def _slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    off = [False] * x.ndim
    begin_open, end_open, single = (
        off if mask is None else mask.tolist() for mask in (begin_mask, end_mask, squeeze_mask)
    )
    steps = [1] * x.ndim if stride is None else stride.tolist()
    if any(single) and any(step != 1 for step, alone in zip(steps, single, strict=True) if not alone):
        raise OpenError("Core ML is reported to pass over squeeze_mask where another axis has a stride")
    index: list[int | slice] = []
    for axis, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        if single[axis]:
            index.append(first)
        else:
            index.append(slice(None if begin_open[axis] else first, None if end_open[axis] else last, steps[axis]))
    # NumPy's slices may run backwards, torch's may not.
    backwards = [(part, size) for part, size in zip(index, x.shape, strict=True) if isinstance(part, slice)]
    if any(part.step < 0 and len(range(*part.indices(size))) == 1 for part, size in backwards):
        raise OpenError("Core ML is reported to fail where a slice that runs backwards takes one value")
    return torch.as_tensor(x.numpy()[tuple(index)].copy())


@operation("slice_by_size")
def _slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for axis, (first, length) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        start = first if first >= 0 else first + x.shape[axis]
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


@operation("crop")
def _crop(x: Tensor, crop_height: Tensor, crop_width: Tensor) -> Tensor:
    (top, bottom), (left, right) = crop_height.tolist(), crop_width.tolist()
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


@operation("band_part")
def _band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    x = x if lower < 0 else x.triu(-int(lower))
    return x if upper < 0 else x.tril(int(upper))


@operation("gather")
def _gather(x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    axis, batch_dims = int(axis) % x.ndim, int(batch_dims)
    if batch_dims:
        pairs = zip(x, indices, strict=True)
        return torch.stack([_gather(one, index, axis - 1, batch_dims - 1, validate_indices) for one, index in pairs])
    _require_within(indices, x.shape[axis])
    return x.index_select(axis, indices.reshape(-1)).reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


@operation("gather_along_axis")
def _gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:  # noqa: ARG001
    _require_within(indices, x.shape[int(axis)])
    return x.gather(int(axis), indices.long())


def _require_within(indices: Tensor, size: int) -> None:
    """Refuse indices outside of an axis; up to iOS 16 negative ones counted from the end, now they are undefined."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        low, high = int(indices.min()), int(indices.max())
        raise OpenError(f"indices must lie in [0, {size}), or iOS 17 leaves the result undefined; got {low} to {high}")


@operation("pad")
def _pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: float | Tensor = 0.0) -> Tensor:
    pairs = pad.reshape(-1, 2).tolist()
    if mode == "constant":
        # torch counts the pairs from the last axis.
        return F.pad(x, [amount for pair in reversed(pairs) for amount in pair], value=float(constant_val))
    if any(before or after for before, after in pairs[:-2]):
        raise ValueError(f"Core ML takes mode {mode!r} in the last two axes alone, got {pairs}")
    for axis, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        last = x.shape[axis] - 1
        most = last if mode == "reflect" else last + 1
        if max(before, after) > most:
            raise ValueError(f"mode {mode!r} takes at most {most} of an axis of {last + 1}, got {before} and {after}")
        index = torch.arange(-before, x.shape[axis] + after)
        index = index.clamp(0, last) if mode == "replicate" else last - (last - index.abs()).abs()
        x = x.index_select(axis, index)
    return x


@operation("matmul")
def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    if x.is_floating_point() != y.is_floating_point():
        raise OpenError("MIL does not say how floats are multiplied with integers")
    return torch.matmul(x.mT if transpose_x else x, y.mT if transpose_y else y)


@operation("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not x.is_floating_point():
        raise OpenError("Core ML is reported to fail on integers")
    return F.linear(x, weight, bias)


# What MIL documents, its letters named in order: nchw,nwhu->nchu and chw,whr->chr.
_EQUATIONS = ("ijkl,ilkm->ijkm", "ijk,kjl->ijl")


@operation("einsum")
def _einsum(values: list[Tensor], equation: str) -> Tensor:
    letters = dict.fromkeys(filter(str.isalpha, equation))
    ordered = equation.translate({ord(letter): chr(ord("i") + place) for place, letter in enumerate(letters)})
    if ordered not in _EQUATIONS:
        raise OpenError(f"MIL takes nchw,nwhu->nchu and chw,whr->chr alone, got {equation}")
    return torch.einsum(equation, *values)
