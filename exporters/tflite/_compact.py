"""A .tflite file without what only its converter needed: tensors are named by their layer, what is equal stands once.

litert-torch names every tensor by the whole path of classes and attributes of all layers that were merged into it:
some hundred bytes each, which is a good part of a small model in int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_FILE_IDENTIFIER = b"TFL3"
# What runtimes expect of constants, and vector units like.
_ALIGNMENT = 16


def compact(content: bytes) -> bytes:
    """Return a file that computes the same, with short names; constants stand in the file's own table, aligned."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    # Buffer 0 is empty by convention: tensors without values point to it.
    places: dict[bytes, int] = {b"": 0}
    for buffer in model.buffers:
        places.setdefault(_data(buffer, content), len(places))
    numbers = [places[_data(buffer, content)] for buffer in model.buffers]
    model.buffers = [_AlignedBuffer(schema, data) for data in places]
    shared: dict[bytes, int] = {}
    for graph in model.subgraphs:
        ends = {int(index) for index in (*graph.inputs, *graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            tensor.buffer = numbers[tensor.buffer]
            if index not in ends and tensor.name:
                tensor.name = layer_name(tensor.name.decode()).encode()
            if tensor.quantization is not None and tensor.quantization.details is None:
                tensor.quantization = _SharedScales(schema, tensor.quantization, shared)
    for entry in model.metadata or []:
        entry.buffer = numbers[entry.buffer]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
    return bytes(builder.Output())


class _AlignedBuffer:
    """A constant as the schema wants it; the generated code forgets the alignment."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema, self._data = schema, data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated code's name
        data = _vector(builder, self._data, 1, _ALIGNMENT) if self._data else None
        self._schema.BufferStart(builder)
        if data is not None:
            self._schema.BufferAddData(builder, data)
        return self._schema.BufferEnd(builder)


class _SharedScales:
    """How a tensor is quantized; equal lists of scales, and of zero points, stand once in the file."""

    def __init__(self, schema: Any, given: Any, shared: dict[bytes, int]) -> None:
        self._schema, self._given, self._shared = schema, given, shared

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - the generated code's name
        schema = self._schema
        scale = self._once(builder, self._given.scale, np.dtype("<f4"))
        zero = self._once(builder, self._given.zeroPoint, np.dtype("<i8"))
        schema.QuantizationParametersStart(builder)
        if scale is not None:
            schema.QuantizationParametersAddScale(builder, scale)
        if zero is not None:
            schema.QuantizationParametersAddZeroPoint(builder, zero)
        schema.QuantizationParametersAddQuantizedDimension(builder, self._given.quantizedDimension)
        return schema.QuantizationParametersEnd(builder)

    def _once(self, builder: Any, values: Any, kind: np.dtype[Any]) -> int | None:
        if values is None:
            return None
        data = np.asarray(values, kind).tobytes()
        key = kind.str.encode() + data
        if key not in self._shared:
            self._shared[key] = _vector(builder, data, kind.itemsize, kind.itemsize)
        return self._shared[key]


def _vector(builder: Any, data: bytes, item: int, alignment: int) -> int:
    """Write a vector, and return where it stands."""
    builder.StartVector(item, len(data) // item, alignment)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    place: int = builder.EndVector()
    return place


def layer_name(name: str) -> str:
    """Return the qualified name of the layer that a tensor is of, as PyTorch has it, with the converter's number.

    ``a.Wrapper/a.Net_wrapped/torch.nn.modules.Sequential_layer1/torch.nn.modules.conv.Conv2d_0;2`` is ``layer1.0:2``.
    Names of another form are left as they are.
    """
    if ";" not in name:
        return name
    path, _, number = name.rpartition(";")
    parts = [part.rpartition(".")[2].partition("_")[2] for part in path.rpartition(";;")[2].split("/")]
    short = ".".join(part for part in parts if part and part != "wrapped")
    return f"{short}:{number}" if number else short


def _data(buffer: Any, content: bytes) -> bytes:
    """Return a buffer's values, which may also stand behind the table."""
    if buffer.offset and buffer.offset > 1:
        return content[buffer.offset : buffer.offset + buffer.size]
    return b"" if buffer.data is None else bytes(buffer.data)
