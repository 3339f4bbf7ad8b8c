"""The operators of a graph that multiply with weights: convolutions, linear layers, matrix products, recurrences."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils.flop_counter import FlopCounterMode

from sekron_edge.nn._capture import CapturedGraph, shape_of, tensor_of
from sekron_edge.primitives import Conv, ConvTranspose, Elementwise, Linear, MatMul, Primitive
from sekron_edge.structure import Shape

_CONVOLUTIONS = {f"conv{dims}d": dims for dims in (1, 2, 3)}
_TRANSPOSED = {f"conv_transpose{dims}d": dims for dims in (1, 2, 3)}
_MATRIX_PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot", "inner", "linalg_multi_dot")
_RECURRENT = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
RECURRENCES = frozenset(_RECURRENT.values())
_TABLES = {"embedding": "Embedding", "embedding_bag": "EmbeddingBag", "bilinear": "Bilinear"}
_ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Geometry:
    """Arguments of a convolution, as PyTorch's layers name them; ``padding`` may be ``same`` or ``valid``."""

    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] = ()
    transposed: bool = False


@dataclass(frozen=True)
class WeightOperator:
    """An operator that multiplies its input with a constant.

    Attributes:
        kind: The layer's class that does the same, as ``Conv2d``; ``MatMul`` where there is none.
        input: What is multiplied.
        weight: A parameter or a buffer, or what is computed from these alone.
        bias: What is added; None if nothing is.
        constants: All its operands that are constant.
        geometry: Of a convolution, else None.
    """

    kind: str
    input: fx.Node
    weight: fx.Node
    bias: fx.Node | None
    constants: tuple[fx.Node, ...]
    geometry: Geometry | None = None

    @property
    def is_layer(self) -> bool:
        """Whether it is what a linear layer or a convolution computes."""
        return self.kind == "Linear" or self.geometry is not None

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution with one input channel a group, and several groups."""
        if self.geometry is None or self.geometry.groups == 1:
            return False
        shape = shape_of(self.weight)
        return (shape[0] // self.geometry.groups if self.geometry.transposed else shape[1]) == 1


def kind_of(node: fx.Node) -> str:
    """Return the name of an ATen operator without its overload; empty for others."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name).removeprefix("aten::")


def bound(node: fx.Node) -> dict[str, Any]:
    """Return an ATen operator's arguments by name, defaults included."""
    given: dict[str, Any] = {}
    schema = node.target._schema  # type: ignore[union-attr]
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            given[argument.name] = node.args[position]
        else:
            given[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return given


def weight_operator(node: fx.Node, captured: CapturedGraph) -> WeightOperator | None:
    """Return a node as an operator with weights; None if it has none."""
    kind = kind_of(node)
    if kind in _CONVOLUTIONS or kind in _TRANSPOSED or kind == "linear":
        given = bound(node)
        if captured.is_constant(given["input"]) or not captured.is_constant(given["weight"]):
            return None
        operands = given["input"], given["weight"], given["bias"]
        held = tuple(source for source in operands[1:] if source is not None and captured.is_constant(source))
        if kind == "linear":
            return WeightOperator("Linear", *operands, held)
        name = f"ConvTranspose{kind[-2:]}" if kind in _TRANSPOSED else f"Conv{kind[-2:]}"
        return WeightOperator(name, *operands, held, _geometry(kind, given))
    names = {**dict.fromkeys(_MATRIX_PRODUCTS, "MatMul"), **_RECURRENT, **_TABLES}
    if kind not in names:
        return None
    constants = [source for source in node.all_input_nodes if captured.is_constant(source)]
    data = [source for source in node.all_input_nodes if not captured.is_constant(source)]
    multiplied = [source for source in constants if captured.sources(source)]
    if kind in ("addmm", "baddbmm"):  # the first operand is added, not multiplied
        multiplied = [source for source in multiplied if source in node.args[1:3]]
        data = [source for source in data if source in node.args[1:3]]
    if not multiplied or not data:
        return None
    weight = max(multiplied, key=lambda source: prod(shape_of(source)))
    return WeightOperator(names[kind], data[0], weight, None, tuple(constants))


def _geometry(kind: str, given: dict[str, Any]) -> Geometry:
    dims = int(kind[-2])
    padding = given["padding"]
    return Geometry(
        stride=_each(given["stride"], dims),
        padding=padding if isinstance(padding, str) else _each(padding, dims),
        dilation=_each(given["dilation"], dims),
        groups=int(given["groups"]),
        output_padding=_each(given.get("output_padding", 0), dims) if kind in _TRANSPOSED else (),
        transposed=kind in _TRANSPOSED,
    )


def _each(given: Any, axes: int) -> tuple[int, ...]:
    values = tuple(int(value) for value in given) if isinstance(given, list | tuple) else (int(given),)
    return values * axes if len(values) == 1 else values


def product_primitives(node: fx.Node) -> tuple[Primitive, ...] | None:
    """Return the operations of a convolution, a linear operator, a matrix product, an attention or a recurrence.

    Operands may be constants or not: the MACs are those of ``torch.utils.flop_counter``. None for other operators.
    """
    kind = kind_of(node)
    operands: list[Any] = list(node.args)
    primitives: tuple[Primitive, ...] | None = None
    if kind in _CONVOLUTIONS or kind in _TRANSPOSED:
        primitives = (_convolution(kind, node),)
    elif kind == "linear":
        shape, weight = shape_of(operands[0]), shape_of(operands[1])
        primitives = (Linear(prod(shape[:-1]), shape[-1], prod(weight[:-1])),)
    elif kind == _ATTENTION:
        primitives = _attention(*map(shape_of, operands[:3]))
    elif kind in _RECURRENT:
        primitives = _recurrence(operands)
    elif kind in ("matmul", "mm", "bmm"):
        primitives = (_matrix_product(*map(shape_of, operands[:2])),)
    elif kind in ("addmm", "baddbmm"):
        primitives = (_matrix_product(*map(shape_of, operands[1:3])),)
    elif kind in _MATRIX_PRODUCTS:
        out = shape_of(node)
        columns = out[-1] if out else 1
        primitives = (MatMul(1, max(1, prod(out[:-1])), _counted(node) // max(1, prod(out)), columns),)
    return primitives


def _convolution(kind: str, node: fx.Node) -> Primitive:
    given = bound(node)
    geometry = _geometry(kind, given)
    dims = len(geometry.stride)
    shape, weight, out = shape_of(given["input"]), shape_of(given["weight"]), shape_of(node)
    shape = shape if len(shape) == dims + 2 else (1, *shape)
    kernel, spatial = weight[2:], out[len(out) - dims :]
    if geometry.transposed:
        channels = weight[1] * geometry.groups
        return ConvTranspose(shape, channels, kernel, geometry.stride, geometry.groups, spatial)
    padding = () if isinstance(geometry.padding, str) else geometry.padding
    return Conv(shape, weight[0], kernel, geometry.stride, geometry.dilation, geometry.groups, spatial, padding)


def _matrix_product(left: Shape, right: Shape) -> Primitive:
    """Return the product of matrices of these shapes; PyTorch broadcasts their leading axes."""
    left = left if len(left) > 1 else (1, *left)
    right = right if len(right) > 1 else (*right, 1)
    if len(right) == 2:
        return MatMul(1, prod(left[:-1]), left[-1], right[-1])
    batch = prod(torch.broadcast_shapes(left[:-2], right[:-2]))
    return MatMul(batch, left[-2], left[-1], right[-1])


def _attention(query: Shape, key: Shape, value: Shape) -> tuple[Primitive, ...]:
    batch = prod(query[:-2])
    return (
        MatMul(batch, query[-2], query[-1], key[-2]),
        Elementwise("curve", (batch, query[-2], key[-2])),
        MatMul(batch, query[-2], key[-2], value[-1]),
    )


def _recurrence(operands: list[Any]) -> tuple[Primitive, ...]:
    """Return the products of all steps: each row of each weight matrix meets each step of each sequence once."""
    steps = prod(shape_of(operands[0])[:-1])
    lists = [operand for operand in operands[1:] if isinstance(operand, list | tuple)]
    matrices = [shape_of(weight) for weight in max(lists, key=len) if len(shape_of(weight)) == 2]
    return tuple(Linear(steps, columns, rows) for rows, columns in matrices)


def _counted(node: fx.Node) -> int:
    """Count a node's MACs by running it on tensors without values."""

    def empty(source: fx.Node) -> Tensor | None:
        traced = tensor_of(source)
        return None if traced is None else torch.empty(traced.shape, dtype=traced.dtype, device="meta")

    args, kwargs = fx.map_arg((node.args, node.kwargs), empty)
    assert callable(node.target)
    with FlopCounterMode(display=False) as counter:
        node.target(*args, **kwargs)
    return int(counter.get_total_flops()) // 2
