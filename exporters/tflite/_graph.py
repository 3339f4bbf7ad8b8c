"""A .tflite file as its schema has it, read without any runtime: none of them takes what all the others take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sekron_edge.artifacts import Quantization, Sdk, reading
from sekron_edge.errors import ExportError

from ._extent import require_extent

_SCHEMA = Sdk({"ai-edge-litert": "ai_edge_litert"}, install="pip install 'sekron-edge[litert]'")
_MAGIC = b"TFL3"
# Of values that memory holds; handles and strings are no such values.
_BITS = {
    "FLOAT64": 64, "FLOAT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "INT64": 64, "UINT64": 64, "INT32": 32, "UINT32": 32,
    "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT4": 4, "UINT4": 4, "INT2": 2,
    "COMPLEX64": 64, "COMPLEX128": 128, "FLOAT8_E4M3FN": 8, "FLOAT8_E5M2": 8,
}  # fmt: skip
_CUSTOM = "CUSTOM"
_NO_TENSOR = -1
# Attributes of operators' options that are the number of a graph, and those of what runs once, before all inferences.
_CALLS = (
    "thenSubgraphIndex", "elseSubgraphIndex", "condSubgraphIndex", "bodySubgraphIndex", "subgraph",
    "decompositionSubgraphIndex",
)  # fmt: skip
_CALLS_ONCE = "initSubgraphIndex"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        number: Its place in the graph.
        name: Empty where it has none.
        shape: Empty where the file states none, as for handles.
        kind: Of its values, as the schema calls it: ``INT8``.
        data: Its bytes if it is constant.
        sparse: Whether its bytes are those of a few of its values.
        variable: Whether it keeps its values from one inference to the next.
        quantization: Where one scale holds for all values.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    kind: str
    data: npt.NDArray[np.uint8] | None
    sparse: bool
    variable: bool
    quantization: Quantization | None

    @property
    def elements(self) -> int:
        """How many values it has; 0 for a handle."""
        return prod(self.shape) if self.kind in _BITS else 0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return -(-self.elements * _BITS.get(self.kind, 0) // 8)

    def __str__(self) -> str:
        # Other converters' names tell the whole history of a tensor; the end says which it is.
        last = self.name.rstrip(";").rpartition(";")[2]
        shape = f" ({'x'.join(map(str, self.shape))})" if self.shape else ""
        return (repr(last) if last else f"tensor {self.number}") + shape


@dataclass(frozen=True)
class Operator:
    """An operator of a graph.

    Attributes:
        kind: As the schema calls it, ``CONV_2D``; of a custom operator its own name.
        custom: Whether it is none of the schema's.
        inputs: Numbers of tensors; -1 where an optional one is left out.
        outputs: Numbers of tensors.
        calls: Numbers of the graphs that it may run.
        prepares: Numbers of those that it runs once, before all inferences.
    """

    kind: str
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    calls: tuple[int, ...]
    prepares: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Tensors, and the operators between them in the order in which they run."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def read(self, operator: Operator, place: int) -> Tensor | None:
        """Return what an operator reads at a place; None where it reads nothing there."""
        number = operator.inputs[place] if place < len(operator.inputs) else _NO_TENSOR
        return None if number == _NO_TENSOR else self.tensors[number]

    def written(self, operator: Operator) -> Tensor | None:
        """Return the first tensor that an operator writes; None if it writes none."""
        return self.tensors[operator.outputs[0]] if operator.outputs else None

    def unwritten(self) -> Tensor | None:
        """Return a tensor that is read, or is an output, before anything has written it; None if there is none."""
        written = set(self.inputs)
        for operator in (*self.operators, None):
            for number in self.outputs if operator is None else operator.inputs:
                tensor = None if number == _NO_TENSOR or number in written else self.tensors[number]
                if tensor is not None and tensor.data is None and not tensor.variable and tensor.elements:
                    return tensor
            written.update(() if operator is None else operator.outputs)
        return None

    def cut_short(self) -> Tensor | None:
        """Return a constant that has less bytes than its shape says; None if there is none."""
        dense = (tensor for tensor in self.tensors if tensor.data is not None and not tensor.sparse)
        return next((one for one in dense if one.data is not None and len(one.data) < one.size_bytes), None)

    def text(self, place: int) -> str:
        """Name an operator for people: what it is, where it stands, the tensor that it writes."""
        operator = self.operators[place]
        written = self.written(operator)
        return f"{operator.kind} {place}" + ("" if written is None else f" writes {written}")


@dataclass(frozen=True)
class TFLiteFile:
    """What a .tflite file holds.

    Attributes:
        graphs: The first is the one that runs; its operators call the others.
        data_is_beside: Whether constants lie behind the model or in other files.
        metadata: What tools added, by name.
    """

    graphs: tuple[Graph, ...]
    data_is_beside: bool
    metadata: Mapping[str, bytes]

    @property
    def main(self) -> Graph:
        """The graph that runs."""
        return self.graphs[0]

    def operators(self) -> Iterator[Operator]:
        """Yield the operators of all graphs."""
        for graph in self.graphs:
            yield from graph.operators


def read_file(path: Path) -> TFLiteFile:
    """Read a file by its schema.

    Raises:
        ExportError: If it is no such file, or damaged.
        MissingDependencyError: If ai-edge-litert, which has the schema, is absent.
    """
    return parsed(model_content(path), path)


def model_content(path: Path) -> bytes:
    """Read a file that is a model.

    Raises:
        ExportError: If it is none.
    """
    content = path.read_bytes()
    if content[4:8] != _MAGIC:
        raise ExportError(f"{path} is no .tflite file: bytes 4 to 8 must be {_MAGIC!r}, got {content[4:8]!r}")
    return content


def parsed(content: bytes, path: Path) -> TFLiteFile:
    """Read the content of a file by its schema; ``path`` is named in errors."""
    schema = _SCHEMA.imported("ai-edge-litert", "ai_edge_litert.schema_py_generated")
    # The schema's readers raise whatever they trip over where offsets lead nowhere.
    with reading(path, "the schema of .tflite"):
        require_extent(schema.Model.GetRootAs(content, 0), len(content))
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        found = _Reader(schema, model).file()
    if not found.graphs:
        raise ExportError(f"{path} has no graph, so nothing runs: convert the model again")
    return found


class _Reader:
    """Makes plain values of what the schema's readers leave open, and checks every number that stands for something."""

    def __init__(self, schema: Any, model: Any) -> None:
        self._kinds = _names(schema.TensorType)
        self._builtin = _names(schema.BuiltinOperator)
        self._buffers = _listed(model.buffers)
        self._graphs = _listed(model.subgraphs)
        self._metadata = _listed(model.metadata)
        self._data_is_beside = bool(model.externalBuffers) or any(buffer.offset > 1 for buffer in self._buffers)
        self._codes = [self._operator_kind(code) for code in _listed(model.operatorCodes)]

    def file(self) -> TFLiteFile:
        return TFLiteFile(
            graphs=tuple(self._graph(graph) for graph in self._graphs),
            data_is_beside=self._data_is_beside,
            metadata={
                _text(one.name): b"" if (data := self._data(one.buffer)) is None else data.tobytes()
                for one in self._metadata
            },
        )

    def _graph(self, graph: Any) -> Graph:
        tensors = tuple(self._tensor(number, tensor) for number, tensor in enumerate(_listed(graph.tensors)))
        count = len(tensors)
        return Graph(
            tensors=tensors,
            operators=tuple(self._operator(operator, count) for operator in _listed(graph.operators)),
            inputs=_numbers(graph.inputs, 0, count),
            outputs=_numbers(graph.outputs, 0, count),
        )

    def _tensor(self, number: int, tensor: Any) -> Tensor:
        return Tensor(
            number=number,
            name=_text(tensor.name),
            shape=tuple(map(int, _listed(tensor.shape))),
            kind=self._kinds.get(tensor.type, f"type {tensor.type}"),
            data=self._data(tensor.buffer),
            sparse=tensor.sparsity is not None,
            variable=bool(tensor.isVariable),
            quantization=_quantization(tensor.quantization),
        )

    def _data(self, buffer: int) -> npt.NDArray[np.uint8] | None:
        if not self._buffers:
            return None
        data = self._buffers[_number(buffer, 0, len(self._buffers))].data
        return None if data is None or len(data) == 0 else np.asarray(data, np.uint8)

    def _operator(self, operator: Any, tensors: int) -> Operator:
        kind, custom = self._codes[_number(operator.opcodeIndex, 0, len(self._codes))]
        options = [one for one in (operator.builtinOptions, operator.builtinOptions2) if one is not None]
        called = [getattr(one, name) for one in options for name in _CALLS if hasattr(one, name)]
        prepared = [getattr(one, _CALLS_ONCE) for one in options if hasattr(one, _CALLS_ONCE)]
        return Operator(
            kind=kind,
            custom=custom,
            inputs=_numbers(operator.inputs, _NO_TENSOR, tensors),
            outputs=_numbers(operator.outputs, 0, tensors),
            calls=_numbers(called, 0, len(self._graphs)),
            prepares=_numbers(prepared, 0, len(self._graphs)),
        )

    def _operator_kind(self, code: Any) -> tuple[str, bool]:
        # Files from before there were more than 127 operators have the older of the two fields.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = self._builtin.get(number, f"operator code {number}")
        if name != _CUSTOM:
            return name, False
        return (_text(code.customCode) or "a custom operator without a name"), True


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def _listed(values: Any) -> Sequence[Any]:
    """Return an empty list where a vector is absent from a file."""
    return [] if values is None else values


def _numbers(values: Any, least: int, end: int) -> tuple[int, ...]:
    return tuple(_number(value, least, end) for value in _listed(values))


def _number(value: Any, least: int, end: int) -> int:
    if not least <= value < end:
        raise ValueError(f"the number {value} stands for nothing: {least} to {end - 1} are there")
    return int(value)


def _text(name: bytes | None) -> str:
    return "" if name is None else name.decode(errors="replace")


def _quantization(found: Any) -> Quantization | None:
    scales = [] if found is None else _listed(found.scale)
    if len(scales) != 1 or not 0 < scales[0] < float("inf"):
        return None
    zeros = _listed(found.zeroPoint)
    return Quantization(scale=float(scales[0]), zero_point=int(zeros[0]) if len(zeros) else 0)
