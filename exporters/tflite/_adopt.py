"""A .tflite file that something else wrote: what it takes and gives, in which precision, and how much it computes."""

from __future__ import annotations

from math import prod
from pathlib import Path

from sekron_edge.artifacts import Precision, TensorSpec

from ._convert import interpreter, tensor_specs


def described(path: Path) -> tuple[list[TensorSpec], list[TensorSpec], Precision]:
    """Return inputs and outputs with their axes as they are in the file, and int8 where an input is integer.

    Raises:
        ExportError: If LiteRT cannot read it.
    """
    loaded = interpreter(path, threads=1)
    inputs, outputs = (tensor_specs(found, []) for found in (loaded.get_input_details(), loaded.get_output_details()))
    return inputs, outputs, "int8" if any(spec.quantization is not None for spec in inputs) else "fp32"


def macs(content: bytes) -> int:
    """Count the multiply-accumulates of a file's convolutions and linear layers."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    kinds = schema.BuiltinOperator
    total = 0
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
            continue
        weights = [int(size) for size in graph.tensors[operator.inputs[1]].shape]
        outputs = prod(int(size) for size in graph.tensors[operator.outputs[0]].shape)
        # Weights of a depthwise convolution are (1, height, width, channels), of the others (outputs, ..., inputs).
        total += outputs * prod(weights[1:-1] if kind == kinds.DEPTHWISE_CONV_2D else weights[1:])
    return total
