"""Models of one primitive each, written with the schema that ai-edge-litert ships.

A converter takes about a second for each; a latency model needs them by the hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from sekron_edge.artifacts import Array, Precision
from sekron_edge.primitives import Conv, Linear, Permute, Primitive

_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
# Scales decide no times; these keep sums of products within int8.
_ACTIVATION_SCALE, _WEIGHT_SCALE = 0.05, 0.002


class _Graph:
    """A .tflite model in the making: tensors in float32 or int8, one input, one output."""

    def __init__(self, precision: Precision) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self._int8 = precision == "int8"
        self._random = np.random.default_rng(0)
        self._model = schema.ModelT()
        self._model.version = _SCHEMA_VERSION
        self._model.operatorCodes = []
        # Buffer 0 is empty by convention: tensors without values point to it.
        self._model.buffers = [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]

    def tensor(self, shape: Sequence[int]) -> int:
        """Add a tensor of activations; return its index."""
        kind = self.schema.TensorType.INT8 if self._int8 else self.schema.TensorType.FLOAT32
        return self._add(shape, kind, [_ACTIVATION_SCALE] if self._int8 else [])

    def constant(self, values: Array, scales: Sequence[float] = (), axis: int = 0) -> int:
        """Add a constant in its own type, integers with the scales of the slices along an axis; return its index."""
        kinds = self.schema.TensorType
        kind = {"float32": kinds.FLOAT32, "int32": kinds.INT32, "int8": kinds.INT8}[values.dtype.name]
        index = self._add(values.shape, kind, scales, axis)
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._graph.tensors[index].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)
        return index

    def _add(self, shape: Sequence[int], kind: int, scales: Sequence[float], axis: int = 0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape = list(shape)
        tensor.name = f"t{len(self._graph.tensors)}".encode()
        tensor.type = kind
        tensor.buffer = 0
        if scales:
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = list(scales)
            tensor.quantization.zeroPoint = [0] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def weights_and_bias(self, shape: Sequence[int], axis: int) -> list[int]:
        """Add random weights, with their output channels along ``axis``, and a bias; return their indices."""
        channels = shape[axis]
        if not self._int8:
            arrays = (self._random.standard_normal(size).astype(np.float32) for size in (shape, channels))
            return [self.constant(array) for array in arrays]
        scales = [_WEIGHT_SCALE] * channels
        weights = self._random.integers(-127, 128, shape, np.int8)
        bias = self._random.integers(-127, 128, channels, np.int32)
        return [
            self.constant(weights, scales, axis),
            self.constant(bias, [_WEIGHT_SCALE * _ACTIVATION_SCALE] * channels),
        ]

    def operator(self, code: int, inputs: list[int], out_shape: Sequence[int], options: Any = None) -> int:
        """Add an operator; return the index of its output."""
        kind = self.schema.OperatorCodeT()
        kind.builtinCode = code
        kind.deprecatedBuiltinCode = min(code, 127)
        self._model.operatorCodes.append(kind)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs = inputs
        out = self.tensor(out_shape)
        operator.outputs = [out]
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
        self._graph.operators.append(operator)
        return out

    def transpose(self, source: int, shape: Sequence[int], order: Sequence[int]) -> int:
        """Add a transpose of a tensor of ``shape``."""
        moved = tuple(shape[axis] for axis in order)
        axes = self.constant(np.array(order, np.int32))
        code = self.schema.BuiltinOperator.TRANSPOSE
        return self.operator(code, [source, axes], moved, self.schema.TransposeOptionsT())

    def reshape(self, source: int, shape: Sequence[int]) -> int:
        """Add a reshape."""
        wanted = self.constant(np.array(shape, np.int32))
        options = self.schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self.operator(self.schema.BuiltinOperator.RESHAPE, [source, wanted], shape, options)

    def finish(self, source: int, out: int) -> bytes:
        """Return the file's content."""
        import flatbuffers

        self._graph.inputs, self._graph.outputs = [source], [out]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return bytes(builder.Output())


def primitive_model(primitive: Primitive, precision: Precision) -> bytes:
    """Return a .tflite model that computes one primitive, with random weights, in float32 or int8."""
    graph = _Graph(precision)
    if isinstance(primitive, Conv):
        return _conv(graph, primitive)
    if isinstance(primitive, Linear):
        return _linear(graph, primitive)
    return _permute(graph, primitive)


def _conv(graph: _Graph, conv: Conv) -> bytes:
    schema = graph.schema
    batch, channels, *spatial = conv.in_shape
    # A convolution over one axis is one over an image of height 1.
    height = [1] * (2 - len(spatial))
    kernel, stride = [*height, *conv.kernel], [*height, *conv.stride]
    dilation, out_spatial = [*height, *conv.dilation], [*height, *conv.out_spatial]
    image = [*height, *spatial]
    # Zero padding costs nothing where it is SAME; any other stands in an input of that size.
    same = all(o == -(-n // s) for o, n, s in zip(out_spatial, image, stride, strict=True))
    if not same:
        image = [
            (o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(out_spatial, stride, dilation, kernel, strict=True)
        ]
    source = graph.tensor([batch, *image, channels])
    depthwise = conv.groups == channels and channels > 1
    if depthwise:
        options, code = schema.DepthwiseConv2DOptionsT(), schema.BuiltinOperator.DEPTHWISE_CONV_2D
        options.depthMultiplier = conv.out_channels // channels
        weights = graph.weights_and_bias([1, *kernel, conv.out_channels], 3)
    else:
        options, code = schema.Conv2DOptionsT(), schema.BuiltinOperator.CONV_2D
        weights = graph.weights_and_bias([conv.out_channels, *kernel, channels // conv.groups], 0)
    options.padding = schema.Padding.SAME if same else schema.Padding.VALID
    options.strideH, options.strideW = stride
    options.dilationHFactor, options.dilationWFactor = dilation
    out_shape = [batch, *out_spatial, conv.out_channels]
    return graph.finish(source, graph.operator(code, [source, *weights], out_shape, options))


def _linear(graph: _Graph, linear: Linear) -> bytes:
    source = graph.tensor([linear.rows, linear.in_features])
    inputs = [source, *graph.weights_and_bias([linear.out_features, linear.in_features], 0)]
    code = graph.schema.BuiltinOperator.FULLY_CONNECTED
    options = graph.schema.FullyConnectedOptionsT()
    return graph.finish(source, graph.operator(code, inputs, [linear.rows, linear.out_features], options))


def _permute(graph: _Graph, permute: Permute) -> bytes:
    # Images are channel-last here: the layout is brought to PyTorch's and back around the permute.
    batch, *axes, taps = permute.shape
    channels = prod(axes)
    source = graph.tensor([batch, taps, channels])
    value = graph.transpose(source, (batch, taps, channels), (0, 2, 1))
    value = graph.transpose(graph.reshape(value, permute.shape), permute.shape, permute.order)
    value = graph.reshape(value, [batch, channels, taps])
    return graph.finish(source, graph.transpose(value, (batch, channels, taps), (0, 2, 1)))
