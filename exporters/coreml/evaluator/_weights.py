"""The constants of a MIL program: values in the protobuf, blobs in ``weight.bin``, compressed weights.

A blob file is a header of 64 bytes, then for each blob a record of 64 bytes (little-endian: a sentinel, the type,
the size in bytes, the offset of the data) and, somewhere, the data. A constant names the offset of its record.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sekron_edge.artifacts import Array

from ._operations import operation

_RECORD = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF
_PREFIX = "@model_path/"
# Types of less than a byte are packed from the least significant bit; bits, and whether they are signed.
_PACKED = {
    "int4": (4, True),
    "uint1": (1, False),
    "uint2": (2, False),
    "uint3": (3, False),
    "uint4": (4, False),
    "uint6": (6, False),
}
_WHOLE = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool")


class Blobs:
    """Reads constants; ``root`` is the folder that blob files are named from."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._content = cache(Path.read_bytes)

    def value(self, spec: Any) -> Tensor | str:
        """Decode a ``MIL.Value``: a tensor in the evaluator's types, or a string.

        Raises:
            ValueError: If the value, or the blob that it names, is not what its type says.
            OSError: If the blob file cannot be read.
        """
        from coremltools.proto import MIL_pb2

        kind = spec.type.WhichOneof("type")
        if kind != "tensorType":
            raise ValueError(f"constants must be tensors, got a {kind}")
        shape = [dimension.constant.size for dimension in spec.type.tensorType.dimensions]
        dtype = MIL_pb2.DataType.Name(spec.type.tensorType.dataType).lower()
        if spec.WhichOneof("value") == "blobFileValue":
            array = _from_bytes(self._blob(spec.blobFileValue), dtype, shape)
        else:
            tensor = spec.immediateValue.tensor
            values = getattr(tensor, tensor.WhichOneof("value")).values
            if dtype == "string":
                return str(values[0])
            array = _from_bytes(values, dtype, shape) if isinstance(values, bytes) else np.array(values)
        return held(torch.from_numpy(array.reshape(shape)))

    def _blob(self, spec: Any) -> bytes:
        path = (self._root / spec.fileName.removeprefix(_PREFIX)).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise ValueError(f"weights must lie in the package, got {spec.fileName!r}")
        content: bytes = self._content(path)
        if spec.offset + _RECORD.size > len(content):
            raise ValueError(f"{path.name} ends before the blob at {spec.offset}")
        sentinel, _, size, offset = _RECORD.unpack_from(content, spec.offset)
        if sentinel != _SENTINEL or offset + size > len(content):
            raise ValueError(f"{path.name} holds no whole blob at {spec.offset}")
        return content[offset : offset + size]


def held(value: Tensor) -> Tensor:
    """Bring a tensor to the type the evaluator computes in: float32, int32 or bool."""
    if value.dtype == torch.bool:
        return value
    return value.to(torch.float32 if value.is_floating_point() else torch.int32)


def _from_bytes(content: bytes, dtype: str, shape: Sequence[int]) -> Array:
    count = int(np.prod(shape))
    if dtype in _PACKED:
        bits, signed = _PACKED[dtype]
        numbers = _unpacked(np.frombuffer(content, np.uint8), bits, count)
        return np.where(numbers >= 1 << (bits - 1), numbers - (1 << bits), numbers) if signed else numbers
    if dtype not in _WHOLE:
        raise ValueError(f"constants of type {dtype} are not supported")
    # Copied, since torch wants memory that may be written to.
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"), count).astype(dtype)


def _unpacked(content: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.int32]:
    """Return the first ``count`` numbers of ``bits`` bits each; shape (count,), int32."""
    fields = np.unpackbits(content, bitorder="little")[: count * bits].reshape(count, bits)
    numbers: npt.NDArray[np.int32] = (fields.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(
        axis=1, dtype=np.int32
    )
    return numbers


def _along(value: Tensor, x: Tensor, axis: Tensor | None) -> Tensor:
    """Bring a vector to the axis of ``x`` that it belongs to; a scalar stays one."""
    if value.ndim == 0:
        return value
    if axis is None:
        raise ValueError(f"a vector of {len(value)} values must name the axis that it belongs to; got none")
    return value.reshape([-1 if i == int(axis) % x.ndim else 1 for i in range(x.ndim)])


def _blockwise(value: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat each element over its block, so that the axes become ``shape``."""
    for axis, size in enumerate(shape):
        value = value.repeat_interleave(size // value.shape[axis], axis)
    return value


@operation("quantize")
def _quantize(
    input: Tensor, scale: Tensor, output_dtype: str, zero_point: Tensor | None = None, axis: Tensor | None = None
) -> Tensor:
    levels = torch.round(input / _along(scale, input, axis))
    levels = levels if zero_point is None else levels + _along(zero_point, input, axis)
    return levels.clamp(-128, 127) if output_dtype == "int8" else levels.clamp(0, 255)


@operation("dequantize")
def _dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    centred = input if zero_point is None else input - _along(zero_point, input, axis)
    return centred * _along(scale, input, axis)


@operation("constexpr_affine_dequantize")
def _affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    return _dequantize(quantized_data, scale, zero_point, axis)


@operation("constexpr_blockwise_shift_scale")
def _blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    centred = data if offset is None else data - _blockwise(offset, data.shape)
    return centred * _blockwise(scale, data.shape)


@operation("constexpr_cast")
def _constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:  # noqa: ARG001 - declared on the output too
    return source_val


@operation("constexpr_lut_to_dense")
def _lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    if shape is not None:
        # Up to iOS 17: one table, and indices packed in bytes.
        bits = lut.numel().bit_length() - 1
        count = int(shape.prod())
        numbers = torch.from_numpy(_unpacked(indices.numpy().astype(np.uint8), bits, count))
        return lut[numbers].reshape(shape.tolist())
    # From iOS 18: a table of vectors for each block of the indices.
    *blocks, palettes, vector = lut.shape
    tables = _blockwise(torch.arange(int(np.prod(blocks))).reshape(blocks), indices.shape)
    vectors = lut.reshape(-1, vector)[tables * palettes + indices]
    axis = 0 if vector_axis is None else int(vector_axis) % indices.ndim
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


@operation("constexpr_sparse_to_dense")
def _sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None) -> Tensor:
    if shape is not None:
        # Up to iOS 17 the mask is packed in bytes.
        bits = _unpacked(mask.numpy().astype(np.uint8), 1, int(shape.prod()))
        mask = torch.from_numpy(bits).reshape(shape.tolist())
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense
