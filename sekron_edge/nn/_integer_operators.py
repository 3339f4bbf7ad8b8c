"""What operators of a model read in integers when an int8 file computes them, as calls of torch's functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The axis of the weight that has the output channels.
WEIGHT_AXIS: dict[Any, int] = {
    F.linear: 0, F.conv1d: 0, F.conv2d: 0, F.conv3d: 0,
    F.conv_transpose1d: 1, F.conv_transpose2d: 1, F.conv_transpose3d: 1,
}  # fmt: skip
_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__iadd__)
_PRODUCTS = (torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__imul__, Tensor.__rmul__)
_AVERAGES = (F.avg_pool2d, F.adaptive_avg_pool2d)
_CURVES = (
    F.hardswish, F.hardsigmoid, F.gelu, F.elu, F.leaky_relu, F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.tanh,
    torch.tanh, Tensor.tanh, F.softmax, torch.softmax, Tensor.softmax, torch.mean, Tensor.mean, F.silu, *_AVERAGES,
)  # fmt: skip
# What only renames values.
VIEWS = (
    torch.flatten, Tensor.flatten, torch.reshape, Tensor.reshape, Tensor.view, torch.squeeze, Tensor.squeeze,
    Tensor.unsqueeze, torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, Tensor.contiguous, F.dropout,
)  # fmt: skip


def has_weight(func: Any, args: Sequence[Any]) -> bool:
    """Say whether a call multiplies a value with a weight: its first two arguments."""
    return func in WEIGHT_AXIS and len(args) > 1 and isinstance(args[1], Tensor)


def averages(func: Any, args: Sequence[Any]) -> bool:
    """Say whether a call pools averages, of more than one place each image."""
    over_all = func is F.adaptive_avg_pool2d and args[1] in (1, (1, 1), [1, 1])
    return func in _AVERAGES and not over_all


def joined(func: Any, args: Sequence[Any]) -> int:
    """Return 2 if a call adds two activations, else 0; a bias has another shape."""
    both = func in _ADDITIONS and len(_activations(args)) == 2
    return 2 if both and args[0].shape == args[1].shape else 0


def passed_on(func: Any, args: Sequence[Any]) -> int:
    """Return how many values an operator without weights reads, and changes by themselves: the first arguments.

    In the file it computes in integers, unless nothing around it does.
    """
    read = len(_activations(args))
    if func in _PRODUCTS:
        return read if read > 1 else 0
    return min(read, 1) if func in _CURVES else 0


def _activations(args: Sequence[Any]) -> list[Tensor]:
    return [value for value in args[:2] if isinstance(value, Tensor) and value.is_floating_point()]


def tensors_of(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments or the results of a function, and those in lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_of(value)
