"""From a PyTorch model to the operations that a runtime runs, through torch.export.

A batch norm is part of the convolution before it, and an activation part of the convolution, sum or pooling before it:
every exporter merges those. Views cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from torch import Tensor, fx, nn

from sekron_edge import pytrees
from sekron_edge.nn._capture import CapturedGraph, capture, shape_of, tensor_of
from sekron_edge.nn._geometry import layer_weight
from sekron_edge.nn._hidden import HiddenLayers
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear
from sekron_edge.nn._operations import (
    Operation,
    OperationGraph,
    channel_scale,
    factorized_primitives,
    layer_primitives,
)
from sekron_edge.nn._rewrite import supported_layers
from sekron_edge.nn._weight_operators import kind_of, product_primitives, weight_operator
from sekron_edge.primitives import (
    Conv,
    ConvTranspose,
    Copy,
    Elementwise,
    Linear,
    Permute,
    Pool,
    Primitive,
    Reshape,
)
from sekron_edge.structure import Factor, Shape, Structure

_CLIPS = ("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min")
_CURVES = (
    "sigmoid", "tanh", "silu", "silu_", "gelu", "hardswish", "hardswish_", "hardsigmoid", "hardsigmoid_", "elu",
    "leaky_relu", "leaky_relu_", "softmax", "exp", "sqrt", "pow", "prelu",
)  # fmt: skip
_SUMS = ("add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum")
_VIEWS = (
    "alias", "clone", "contiguous", "detach", "dropout", "dropout_", "expand", "feature_dropout", "squeeze", "to",
    "unsqueeze", "_to_copy",
)  # fmt: skip
_RESHAPES = ("flatten", "reshape", "unflatten", "view")
_COPIES = (
    "cat", "chunk", "narrow", "pad", "pixel_shuffle", "pixel_unshuffle", "roll", "select", "slice", "split", "stack",
    "upsample_bilinear2d", "upsample_nearest2d",
)  # fmt: skip
_IMAGE_AXES = 4


def operations(model: nn.Module, example_inputs: pytrees.Inputs) -> OperationGraph:
    """Trace a model in evaluation mode; its layers may be dense or compute with factors.

    Raises:
        ExportError: If torch.export cannot trace it, which every format's exporter needs.
    """
    captured = capture(model, example_inputs)
    tracer = _Tracer(model, captured)
    for node in captured.graph.nodes:
        tracer.visit(node)
    return tracer.graph


class _Tracer:
    """Walks a graph of ATen operators once."""

    def __init__(self, model: nn.Module, captured: CapturedGraph) -> None:
        supported, refused = supported_layers(model)
        modules = dict(model.named_modules(remove_duplicate=False))
        factorized = {n: m for n, m in modules.items() if isinstance(m, FactorizedConv | FactorizedLinear)}
        canonical = {id(modules[name]): name for name in reversed([*supported, *refused, *factorized])}
        self._leaves = {path: canonical[id(m)] for path, m in modules.items() if id(m) in canonical}
        self._modules = modules
        self._captured = captured
        self._hidden = HiddenLayers(model, captured)
        self._values: dict[fx.Node, int] = {}
        self._elements: dict[int, int] = {}
        self._operations: list[Operation] = []
        self._calls: dict[str, int] = {}  # the number of each layer call's operation
        self._writers: dict[int, int] = {}
        self._inputs: list[int] = []
        self._outputs: tuple[int, ...] = ()

    @property
    def graph(self) -> OperationGraph:
        hidden = self._hidden.layers(called={name for name in self._leaves.values() if name in self._layers})
        return OperationGraph(tuple(self._operations), self._elements, tuple(self._inputs), self._outputs, hidden)

    @property
    def _layers(self) -> set[str | None]:
        return {operation.layer for operation in self._operations}

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            # Parameters and buffers are not activations: they do not come and go.
            if node in self._captured.inputs:
                self._inputs.append(self._new(node))
        elif node.op == "output":
            self._outputs = tuple(self._read(node))
        elif node.op == "call_function" and (leaf := self._leaf(node)) is not None:
            self._in_leaf(node, *leaf)
        elif node.op == "call_function":
            self._between(node)

    def _leaf(self, node: fx.Node) -> tuple[str, str] | None:
        stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
        for call, (path, _) in stack.items():
            if path in self._leaves:
                return call, self._leaves[path]
        return None

    def _in_leaf(self, node: fx.Node, call: str, name: str) -> None:
        """Make the first operator of a layer's call its operation; those that follow only rename its value."""
        if call in self._calls:
            number = self._operations[self._calls[call]].writes
            self._values[node] = number
            self._elements[number] = _size(node)
            return
        sources = [value for value in node.all_input_nodes if value in self._values]
        if not sources:
            self._of_constants(node)  # or it computes a weight from parameters
            return
        module = self._modules[name]
        shape = shape_of(sources[0])
        if isinstance(module, FactorizedConv | FactorizedLinear):
            primitives = factorized_primitives(module, shape)
        else:
            weight = tuple(layer_weight(module).shape[1:])
            primitives = layer_primitives(Structure(factors=(Factor(shape=weight),), ranks={}), module, shape)
        self._calls[call] = len(self._operations)
        self._add(node, primitives, layer=name)

    def _between(self, node: fx.Node) -> None:
        kind = kind_of(node)
        read = self._read(node)
        operator = weight_operator(node, self._captured)
        if self._captured.is_constant(node):
            self._of_constants(node)
            return
        if operator is not None:
            self._add(node, product_primitives(node) or (), layer=self._hidden.name(node, operator))
            return
        if not read or not isinstance(node.meta.get("val"), Tensor):
            if read:
                self._values[node] = read[0]  # a list of parts, of which getitem takes one
            return
        if kind in _VIEWS or not kind or self._merges(node, kind, read):
            self._values[node] = read[0]
            if kind == "batch_norm":
                writer = self._writers[read[0]]
                self._operations[writer] = replace(self._operations[writer], has_norm=True)
            return
        products = product_primitives(node)
        if products is not None:
            self._add(node, products)
            return
        primitive = _primitive(node, kind, len(read))
        if primitive is None and kind in _RESHAPES:
            self._values[node] = read[0]
            return
        self._add(node, () if primitive is None else (primitive,))

    def _of_constants(self, node: fx.Node) -> None:
        """Count a product of constants: PyTorch computes it at every run, and converters may."""
        products = product_primitives(node)
        if products:
            number = len(self._elements)
            self._elements[number] = _size(node)
            self._operations.append(Operation(None, products, shape_of(node.all_input_nodes[0]), (), number))

    def _merges(self, node: fx.Node, kind: str, read: Sequence[int]) -> bool:
        """Whether the operation before does this as well; nothing else may need the value between them."""
        if kind not in ("batch_norm", *_CLIPS) or read[0] not in self._writers:
            return False
        if len(node.all_input_nodes[0].users) > 1:
            return False
        before = self._operations[self._writers[read[0]]].primitives
        if not before:
            return False
        merging: tuple[type, ...] = (Conv, ConvTranspose, Linear)
        if kind in _CLIPS:
            merging = (*merging, Elementwise, Pool)
        return isinstance(before[-1], merging)

    def _read(self, node: fx.Node) -> list[int]:
        return [self._values[value] for value in node.all_input_nodes if value in self._values]

    def _new(self, node: fx.Node) -> int:
        number = len(self._elements)
        self._values[node] = number
        self._elements[number] = _size(node)
        return number

    def _add(self, node: fx.Node, primitives: tuple[Primitive, ...], layer: str | None = None) -> None:
        read = tuple(dict.fromkeys(self._read(node)))
        number = self._new(node)
        self._writers[number] = len(self._operations)
        source = next(value for value in node.all_input_nodes if value in self._values)
        self._operations.append(Operation(layer, primitives, shape_of(source), read, number))


def _size(node: fx.Node) -> int:
    value = tensor_of(node)
    return 0 if value is None else int(value.numel())


def _primitive(node: fx.Node, kind: str, operands: int) -> Primitive | None:
    """Return the primitive of an operator between layers; None where it is unknown, or moves nothing."""
    shape, source = shape_of(node), shape_of(node.all_input_nodes[0])
    primitive: Primitive | None = None
    if kind in _CLIPS:
        primitive = Elementwise("clip", shape)
    elif kind in _CURVES:
        primitive = Elementwise("curve", shape)
    elif kind == "batch_norm" and len(shape) == _IMAGE_AXES:
        # Where it does not fold into a layer before it, exporters make it a depthwise convolution.
        primitive = channel_scale(shape)
    elif kind in (*_SUMS, "batch_norm"):
        alike = sum(_size(value) == _size(node) for value in node.all_input_nodes)
        primitive = Elementwise("add", shape if len(shape) > 1 else (1, *shape, 1)[:2], max(1, min(operands, alike)))
    elif kind in _COPIES and len(shape) > 1:
        primitive = Copy(shape, operands)
    elif kind in ("permute", "transpose"):
        primitive = Permute(source, _order(node, kind, len(source)))
    elif kind in _RESHAPES:
        primitive = _as_reshape(source, shape)
    elif kind in _POOLS and len(source) == _IMAGE_AXES:
        primitive = _POOLS[kind](node, source, shape)
    return primitive


def _order(node: fx.Node, kind: str, axes: int) -> tuple[int, ...]:
    order = list(range(axes))
    if kind == "permute":
        return tuple(int(axis) % axes for axis in node.args[1])  # type: ignore[union-attr, arg-type]
    first, second = (int(axis) % axes for axis in node.args[1:3])  # type: ignore[arg-type]
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def _as_reshape(before: Shape, after: Shape) -> Reshape | None:
    """Return a reshape that makes a channels-last runtime move values to channels-first memory and back, or None."""

    def image(shape: Shape) -> tuple[int, int, int]:
        spatial = len(shape) >= _IMAGE_AXES
        return (shape[0], shape[1], prod(shape[2:])) if spatial else (prod(shape[:-1]), shape[-1], 1)

    old, new = image(before), image(after)
    moves = any(min(channels, pixels) > 1 for _, channels, pixels in (old, new))
    return Reshape(old, new) if old != new and moves else None


def _pair(given: Any, axes: int = 2) -> tuple[int, ...]:
    values = tuple(int(value) for value in given) if isinstance(given, list | tuple) else (int(given),)
    return values * axes if len(values) == 1 else values


def _windows(node: fx.Node, source: Shape, shape: Shape, reduction: str) -> Pool:
    kernel = _pair(node.args[1])
    given = node.args[2] if len(node.args) > 2 else node.kwargs.get("stride")
    stride = _pair(given) if given else kernel
    return Pool(reduction, source, kernel, stride, tuple(shape[2:]))  # type: ignore[arg-type]


def _adaptive(source: Shape, shape: Shape) -> Pool:
    kernel = tuple(-(-size // out) for size, out in zip(source[2:], shape[2:], strict=True))
    return Pool("mean", source, kernel, kernel, tuple(shape[2:]))


def _mean(source: Shape, shape: Shape) -> Pool | None:
    if prod(shape) != prod(source[:2]):
        return None
    return Pool("mean", source, tuple(source[2:]), tuple(source[2:]), (1, 1))


_POOLS: dict[str, Callable[[fx.Node, Shape, Shape], Primitive | None]] = {
    "max_pool2d": lambda node, source, shape: _windows(node, source, shape, "max"),
    "avg_pool2d": lambda node, source, shape: _windows(node, source, shape, "mean"),
    "adaptive_avg_pool2d": lambda _, source, shape: _adaptive(source, shape),
    "mean": lambda _, source, shape: _mean(source, shape),
}
