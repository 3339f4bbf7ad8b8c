"""A .tflite file that something else wrote: what it takes and gives, as the file says itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sekron_edge.artifacts import TensorSpec
from sekron_edge.errors import ExportError

from ._graph import Graph, Tensor, TFLiteFile

_DTYPES = {
    "FLOAT64": np.float64, "FLOAT32": np.float32, "FLOAT16": np.float16, "INT64": np.int64, "UINT64": np.uint64,
    "INT32": np.int32, "UINT32": np.uint32, "INT16": np.int16, "UINT16": np.uint16, "INT8": np.int8, "UINT8": np.uint8,
    "BOOL": np.bool_, "COMPLEX64": np.complex64, "COMPLEX128": np.complex128,
}  # fmt: skip


def inputs_and_outputs(file: TFLiteFile, path: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Return inputs and outputs with their axes as they are in the file.

    Raises:
        ExportError: If one is of no type that arrays have, or of no fixed shape; names it. If there is no output.
    """
    if not file.main.outputs:
        raise ExportError(f"{path} gives no output, so nothing of what it computes is of use: convert the model again")
    return _specs(file.main, file.main.inputs, "input", path), _specs(file.main, file.main.outputs, "output", path)


def _specs(graph: Graph, numbers: Sequence[int], role: str, path: Path) -> list[TensorSpec]:
    return [_spec(graph.tensors[number], f"{role} {place}", path) for place, number in enumerate(numbers)]


def _spec(tensor: Tensor, role: str, path: Path) -> TensorSpec:
    if tensor.kind not in _DTYPES:
        raise ExportError(
            f"{path}: {role}, {tensor}, is of the type {tensor.kind}, which no array has; leave it inside"
        )
    if any(size <= 0 for size in tensor.shape):
        raise ExportError(
            f"{path}: {role}, {tensor}, must have a fixed shape; convert the model again for inputs of one shape"
        )
    return TensorSpec(
        name=tensor.name,
        shape=tensor.shape,
        dtype=np.dtype(_DTYPES[tensor.kind]).name,
        quantization=tensor.quantization,
    )
