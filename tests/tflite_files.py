"""Tiny .tflite files, as converters that are not ours write them: made of the schema's own objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers


@dataclass
class GraphOf:
    """A graph under construction: ``tensor`` and ``operator`` add to it and return numbers of tensors."""

    file: FileOf
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int] | None,
        kind: str = "INT8",
        *,
        name: str | None = None,
        data: npt.NDArray[Any] | None = None,
        scales: Sequence[float] = (),
        dimension: int = 0,
    ) -> int:
        """Add a tensor; ``shape`` and ``name`` may be left out of the file, ``data`` makes a constant."""
        added = schema.TensorT()
        added.shape = None if shape is None else list(shape)
        added.type = getattr(schema.TensorType, kind)
        added.name = None if name is None else name.encode()
        added.buffer = self.file.buffer(data)
        if scales:
            added.quantization = schema.QuantizationParametersT()
            added.quantization.scale = list(scales)
            added.quantization.zeroPoint = [0] * len(scales)
            added.quantization.quantizedDimension = dimension
        self.tensors.append(added)
        return len(self.tensors) - 1

    def operator(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        """Add an operator: one of the schema's, with its options by name, or a custom one with a flexbuffer."""
        added = schema.OperatorT()
        added.opcodeIndex = self.file.code(kind)
        added.inputs, added.outputs = list(inputs), list(outputs)
        if options is not None and options[0] == "custom":
            added.customOptions = list(flexbuffers.Dumps(options[1]))
        elif options is not None:
            added.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
            added.builtinOptions = getattr(schema, f"{options[0]}T")()
            for name, value in options[1].items():
                setattr(added.builtinOptions, name, value)
        self.operators.append(added)


@dataclass
class FileOf:
    """A file under construction; the first graph is the one that runs."""

    graphs: list[GraphOf] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    codes: dict[str, int] = field(default_factory=dict)

    def graph(self) -> GraphOf:
        self.graphs.append(GraphOf(self))
        return self.graphs[-1]

    def buffer(self, data: npt.NDArray[Any] | None) -> int:
        """Activations share the empty buffer 0."""
        if data is None:
            return 0
        added = schema.BufferT()
        added.data = np.frombuffer(data.tobytes(), np.uint8)
        self.buffers.append(added)
        return len(self.buffers) - 1

    def code(self, kind: str) -> int:
        return self.codes.setdefault(kind, len(self.codes))

    def content(self) -> bytes:
        """Return the bytes of the file."""
        model = schema.ModelT()
        model.version, model.buffers = 3, self.buffers
        model.operatorCodes = [self._code(kind) for kind in self.codes]
        model.subgraphs = []
        for graph in self.graphs:
            packed = schema.SubGraphT()
            packed.tensors, packed.operators = graph.tensors, graph.operators
            packed.inputs, packed.outputs = graph.inputs, graph.outputs
            model.subgraphs.append(packed)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    @staticmethod
    def _code(kind: str) -> Any:
        code = schema.OperatorCodeT()
        code.version = 1
        builtin = getattr(schema.BuiltinOperator, kind, None)
        code.builtinCode = schema.BuiltinOperator.CUSTOM if builtin is None else builtin
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = kind.encode() if builtin is None else None
        return code


def linear() -> FileOf:
    """A linear layer in int8, without any name."""
    file = FileOf()
    graph = file.graph()
    x, y = graph.tensor([1, 4], scales=[0.5]), graph.tensor([1, 3], scales=[2.0])
    weights = graph.tensor([3, 4], data=np.ones((3, 4), np.int8), scales=[0.5])
    graph.operator("FULLY_CONNECTED", [x, weights, -1], [y], ("FullyConnectedOptions", {}))
    graph.inputs, graph.outputs = [x], [y]
    return file
