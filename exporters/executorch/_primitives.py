"""A model of many primitives side by side, and the time of each from what ExecuTorch's tracer says of the whole.

Lowering takes half a second a program, and a few hundredths an operator: a program for each primitive is too slow. Each
primitive stands as in a network: on values that were just computed, in the layout that convolutions leave. What moves
values stands between two convolutions with a single weight a channel, so that changes of layout belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor, nn

from sekron_edge.errors import ExportError
from sekron_edge.primitives import (
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

_PRODUCTS = ("Convolution", "Fully Connected")
# The tracer's clock counts whole microseconds, rounded down.
_HALF_A_TICK_MS = 0.5e-3


class Primitives(nn.Module):
    """All of them; inputs and outputs are listed primitive by primitive.

    Args:
        primitives: Convolutions over images, and none that are transposed.
    """

    def __init__(self, primitives: Sequence[Primitive]) -> None:
        super().__init__()
        branches = [_branch(primitive) for primitive in primitives]
        self.branches = nn.ModuleList(branches)
        self._shapes = [branch.shapes for branch in branches]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run one after another."""
        left = list(inputs)
        each = zip(self.branches, self._shapes, strict=True)
        return tuple(branch(*(left.pop(0) for _ in shapes)) for branch, shapes in each)

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Return random values of the inputs' shapes."""
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(shape, generator=generator) for shapes in self._shapes for shape in shapes)


class _Branch(nn.Module):
    """What times one primitive; ``shapes`` are those of its inputs."""

    shapes: list[tuple[int, ...]]


class _Product(_Branch):
    """A convolution or a linear layer on the absolute values of its input: those were written just before."""

    def __init__(self, product: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.product, self.shapes = product, [shape]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.product(x.abs())
        return result


class _Between(_Branch):
    """What moves values, or computes little on each, between convolutions that compute less still."""

    def __init__(self, moved: nn.Module, shapes: Sequence[tuple[int, ...]], channels: int) -> None:
        super().__init__()
        self.moved, self.shapes = moved, list(shapes)
        self.before = nn.ModuleList([_by_channel(shape[1]) for shape in shapes])
        self.after = _by_channel(channels)

    def forward(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.after(self.moved(*(own(x) for own, x in zip(self.before, inputs, strict=True))))
        return result


class _Permuted(nn.Module):
    def __init__(self, permute: Permute) -> None:
        super().__init__()
        self._permute = permute

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self._permute.shape).permute(self._permute.order).reshape(x.shape)


class _Reshaped(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self._shape)


class _Added(nn.Module):
    """Two tensors, or one and a value for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.randn(1, channels, 1, 1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return x + (self.values if y is None else y)


class _Joined(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)


class _Clipped(nn.Module):
    """Behind a transpose: a convolution would clip its own outputs for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3).relu()


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def _by_channel(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 1, groups=channels, bias=False)


def _branch(primitive: Primitive) -> _Branch:
    match primitive:
        case ConvTranspose() | MatMul():
            raise ValueError(f"{type(primitive).__name__} is not timed: time the convolution or linear layer like it")
        case Conv(in_shape, out, kernel, stride, dilation, groups, _, padding):
            conv = nn.Conv2d(in_shape[1], out, kernel, stride, padding or 0, dilation, groups)  # type: ignore[arg-type]
            return _Product(conv, in_shape)
        case Linear(rows, in_features, out_features):
            return _Product(nn.Linear(in_features, out_features), (rows, in_features))
        case Permute() | Reshape() | Copy():
            return _of_layout(primitive)
        case Elementwise("add", shape, operands):
            return _Between(_Added(shape[1]), [shape] * operands, shape[1])
        case Elementwise(function, shape):
            return _Between(_Clipped() if function == "clip" else nn.Sigmoid(), [shape], shape[1])
    return _Between(_pool(primitive), [primitive.in_shape], primitive.in_shape[1])


def _of_layout(primitive: Permute | Reshape | Copy) -> _Branch:
    match primitive:
        case Permute(shape):
            image = _image(1, shape[1] * shape[2] * shape[3], shape[4])
            return _Between(_Permuted(primitive), [image], image[1])
        case Reshape(before, after):
            return _Between(_Reshaped(_image(*after)), [_image(*before)], after[1])
        case Copy(shape, parts):
            sizes = [len(part) for part in torch.arange(shape[1]).tensor_split(parts)]
            return _Between(_Joined(), [(shape[0], size, *shape[2:]) for size in sizes], shape[1])


def _pool(pool: Pool) -> nn.Module:
    if pool.reduction == "mean" and pool.kernel == pool.in_shape[2:]:
        return _Mean()
    size, stride, padding = pool.kernel[0], pool.stride[0], pool.kernel[0] // 2 if pool.kernel[0] > 2 else 0
    if pool.reduction == "max":
        return nn.MaxPool2d(size, stride, padding)
    return nn.AvgPool2d(size, stride, padding, count_include_pad=False)


def _image(batch: int, channels: int, pixels: int) -> tuple[int, ...]:
    side = isqrt(pixels)
    return (batch, channels, side, side) if side * side == pixels else (batch, channels, pixels, 1)


def times_of(
    primitives: Sequence[Primitive], operators: Sequence[tuple[str, float, float]]
) -> list[tuple[float, float]]:
    """Return the milliseconds of each primitive, and their spread.

    Args:
        primitives: In the model's order.
        operators: What ran, in its order: the name of each operator, its milliseconds, and their spread.

    Raises:
        ExportError: If these are not the operators of such a model.
    """
    left = iter(operators)

    def until_product() -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the time and the spread of what ran before the next product, and its own."""
        passed, passed_spread = 0.0, 0.0
        for name, milliseconds, spread in left:
            if name.startswith(_PRODUCTS):
                return (passed, passed_spread), (milliseconds + _HALF_A_TICK_MS, spread)
            passed, passed_spread = passed + milliseconds + _HALF_A_TICK_MS, passed_spread + spread
        raise ExportError(f"{len(operators)} operators are too few for {len(primitives)} primitives: were they traced?")

    found = []
    for primitive in primitives:
        if isinstance(primitive, Conv | Linear):
            found.append(until_product()[1])
            continue
        for _ in _branch(primitive).shapes:
            until_product()
        found.append(until_product()[0])
    if any(name.startswith(_PRODUCTS) for name, _, _ in left):
        raise ExportError(f"{len(operators)} operators are too many for {len(primitives)} primitives")
    return found
