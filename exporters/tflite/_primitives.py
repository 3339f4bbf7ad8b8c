"""Models of one primitive each, written with the schema that ai-edge-litert ships.

A converter takes about a second for each; a latency model needs them by the hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from sekron_edge.artifacts import Array, Precision
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

_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
# Scales decide no times; these keep sums of products within int8. Of a sigmoid the runtime takes no other.
_ACTIVATION_SCALE, _WEIGHT_SCALE = 0.05, 0.002
_SIGMOID_SCALE, _SIGMOID_ZERO = 1 / 256, -128


class _Graph:
    """A .tflite model in the making: tensors in float32 or int8, one output."""

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

    def tensor(self, shape: Sequence[int], scale: float = _ACTIVATION_SCALE, zero: int = 0) -> int:
        """Add a tensor of activations; return its index."""
        kind = self.schema.TensorType.INT8 if self._int8 else self.schema.TensorType.FLOAT32
        index = self._add(shape, kind, [scale] if self._int8 else [])
        if self._int8:
            self._graph.tensors[index].quantization.zeroPoint = [zero]
        return index

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

    def channel_values(self, channels: int) -> int:
        """Add a random value for each channel, in the type of activations; return their index."""
        if self._int8:
            return self.constant(self._random.integers(-127, 128, channels, np.int8), [_ACTIVATION_SCALE])
        return self.constant(self._random.standard_normal(channels).astype(np.float32))

    def operator(
        self, code: int, inputs: list[int], out_shape: Sequence[int], options: Any = None, out: int | None = None
    ) -> int:
        """Add an operator, with a new tensor for its output if none is given; return the output's index."""
        kind = self.schema.OperatorCodeT()
        kind.builtinCode = code
        kind.deprecatedBuiltinCode = min(code, 127)
        self._model.operatorCodes.append(kind)
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs = inputs
        out = self.tensor(out_shape) if out is None else out
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

    def pad(self, source: int, shape: Sequence[int], ends: Sequence[tuple[int, int]]) -> int:
        """Add zeros at both ends of each axis."""
        amounts = self.constant(np.array(ends, np.int32))
        return self.operator(self.schema.BuiltinOperator.PAD, [source, amounts], shape, self.schema.PadOptionsT())

    def finish(self, sources: int | list[int], out: int) -> bytes:
        """Return the file's content."""
        import flatbuffers

        self._graph.inputs, self._graph.outputs = [sources] if isinstance(sources, int) else sources, [out]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return bytes(builder.Output())


def primitive_model(primitive: Primitive, precision: Precision) -> bytes:
    """Return a .tflite model that computes one primitive, with random weights, in float32 or int8.

    Raises:
        ValueError: Of a transposed convolution, which latency models take for an ordinary one.
    """
    if isinstance(primitive, ConvTranspose):
        raise ValueError("transposed convolutions are not timed; time the convolution that is like it")
    write: Callable[[_Graph, Any], bytes] = _WRITERS[type(primitive)]
    return write(_Graph(precision), primitive)


def _conv(graph: _Graph, conv: Conv) -> bytes:
    schema = graph.schema
    batch, channels, *spatial = conv.in_shape
    # A convolution over one axis is one over an image of height 1.
    height = [1] * (2 - len(spatial))
    kernel, stride = [*height, *conv.kernel], [*height, *conv.stride]
    dilation, out_spatial = [*height, *conv.dilation], [*height, *conv.out_spatial]
    image = [*height, *spatial]
    # Zero padding costs nothing where it is SAME; any other stands in an input of that size, or is done before.
    padded = [*height, *conv.padded_shape[2:]]
    same = padded == image and all(o == -(-n // s) for o, n, s in zip(out_spatial, image, stride, strict=True))
    if not same and padded == image:
        axes = zip(out_spatial, stride, dilation, kernel, strict=True)
        image = padded = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in axes]
    source = value = graph.tensor([batch, *image, channels])
    if padded != image:
        ends = [((after - n) // 2,) * 2 for after, n in zip(padded, image, strict=True)]
        value = graph.pad(value, [batch, *padded, channels], [(0, 0), *ends, (0, 0)])
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
    return graph.finish(source, graph.operator(code, [value, *weights], out_shape, options))


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


def _reshape(graph: _Graph, reshape: Reshape) -> bytes:
    # As converters write it: to channels-first memory, where a reshape moves nothing, and back.
    (batch, channels, pixels), (new_batch, new_channels, new_pixels) = reshape.before, reshape.after
    value = source = graph.tensor([batch, pixels, channels])
    if min(channels, pixels) > 1:
        value = graph.transpose(value, (batch, pixels, channels), (0, 2, 1))
    value = graph.reshape(value, reshape.after)
    if min(new_channels, new_pixels) > 1:
        value = graph.transpose(value, (new_batch, new_channels, new_pixels), (0, 2, 1))
    return graph.finish(source, value)


def _channels_last(shape: Sequence[int]) -> list[int]:
    batch, channels, *spatial = shape
    return [batch, *spatial, channels]


def _elementwise(graph: _Graph, elementwise: Elementwise) -> bytes:
    schema, shape = graph.schema, _channels_last(elementwise.shape)
    source = graph.tensor(shape)
    if elementwise.function == "add":
        # With one operand that is read, the other is a bias.
        other = graph.tensor(shape) if elementwise.operands > 1 else graph.channel_values(shape[-1])
        out = graph.operator(schema.BuiltinOperator.ADD, [source, other], shape, schema.AddOptionsT())
        return graph.finish([source, other] if elementwise.operands > 1 else source, out)
    if elementwise.function == "clip":
        return graph.finish(source, graph.operator(schema.BuiltinOperator.RELU, [source], shape))
    out = graph.tensor(shape, _SIGMOID_SCALE, _SIGMOID_ZERO)
    return graph.finish(source, graph.operator(schema.BuiltinOperator.LOGISTIC, [source], shape, out=out))


def _pool(graph: _Graph, pool: Pool) -> bytes:
    schema = graph.schema
    batch, channels, *spatial = pool.in_shape
    source = graph.tensor([batch, *spatial, channels])
    out_shape = [batch, *pool.out_spatial, channels]
    if pool.reduction == "mean" and list(pool.kernel) == spatial:
        axes = graph.constant(np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = True
        return graph.finish(source, graph.operator(schema.BuiltinOperator.MEAN, [source, axes], out_shape, options))
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.SAME
    options.filterHeight, options.filterWidth = pool.kernel
    options.strideH, options.strideW = pool.stride
    kinds = schema.BuiltinOperator
    code = kinds.MAX_POOL_2D if pool.reduction == "max" else kinds.AVERAGE_POOL_2D
    out_shape = [batch, *(-(-size // stride) for size, stride in zip(spatial, pool.stride, strict=True)), channels]
    return graph.finish(source, graph.operator(code, [source], out_shape, options))


def _copy(graph: _Graph, copy: Copy) -> bytes:
    schema, shape = graph.schema, _channels_last(copy.shape)
    sizes = [len(part) for part in np.array_split(np.arange(shape[-1]), copy.parts)]
    sources = [graph.tensor([*shape[:-1], size]) for size in sizes]
    options = schema.ConcatenationOptionsT()
    options.axis = len(shape) - 1
    return graph.finish(sources, graph.operator(schema.BuiltinOperator.CONCATENATION, sources, shape, options))


_WRITERS: dict[type, Callable[[_Graph, Any], bytes]] = {
    Conv: _conv,
    Linear: _linear,
    Permute: _permute,
    Reshape: _reshape,
    Elementwise: _elementwise,
    Pool: _pool,
    Copy: _copy,
}
