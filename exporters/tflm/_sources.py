"""What firmware needs of a model: an aligned array, the operators to register, the size of the arena."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

_VALUES_A_LINE = 20
_UNUSUAL = {"PADV2": "PadV2"}

_HEADER = """\
// {file}: written by sekron-edge. The model as firmware with TensorFlow Lite Micro takes it.
//
//     alignas(16) static uint8_t arena[{name}::kArenaBytes];
//     tflite::MicroMutableOpResolver<{name}::kOperators> resolver;
//     {name}::RegisterOperators(resolver);
//     tflite::MicroInterpreter interpreter(
//         tflite::GetModel({name}::kModel), resolver, arena, {name}::kArenaBytes);
#pragma once
#include <stddef.h>

namespace {name} {{

extern const unsigned char kModel[];
constexpr size_t kModelBytes = {model_bytes};
// Tested with {kernels}: {least} bytes, and {margin:.0%} beyond. CMSIS-NN wants scratch memory beside.
constexpr size_t kArenaBytes = {arena_bytes};
constexpr unsigned kOperators = {count};

// True if the resolver took all of them.
template <typename Resolver>
bool RegisterOperators(Resolver& resolver) {{
  return {calls};
}}

}}  // namespace {name}
"""

_SOURCE = """\
// {file}: written by sekron-edge.
#include "{header}"

namespace {name} {{

alignas(16) const unsigned char kModel[] = {{
{values}
}};

}}  // namespace {name}
"""


def operators(content: bytes) -> list[str]:
    """Return the operators of a .tflite file, each once, as the schema calls them."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return sorted({_kind(model, operator) for operator in model.subgraphs[0].operators})


def _kind(model: Any, operator: Any) -> str:
    from ai_edge_litert import schema_py_generated as schema

    kinds: Mapping[str, Any] = vars(schema.BuiltinOperator)
    names: dict[int, str] = {value: key for key, value in kinds.items() if not key.startswith("_")}
    code = model.operatorCodes[operator.opcodeIndex]
    return names[max(code.builtinCode, code.deprecatedBuiltinCode)]


def peak_operator(content: bytes) -> str:
    """Return the operator that most bytes of activations are live at, and the tensor that it writes."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    widths = {schema.TensorType.INT8: 1, schema.TensorType.FLOAT32: 4, schema.TensorType.INT32: 4}
    size = {
        index: prod(int(n) for n in tensor.shape) * widths.get(tensor.type, 4)
        for index, tensor in enumerate(graph.tensors)
        if not _is_constant(model, tensor)
    }
    first = dict.fromkeys(map(int, graph.inputs), -1)
    last = dict.fromkeys(map(int, graph.outputs), len(graph.operators))
    for place, operator in enumerate(graph.operators):
        first |= {int(tensor): place for tensor in operator.outputs}
        last |= {int(tensor): max(place, last.get(int(tensor), -1)) for tensor in (*operator.inputs, *operator.outputs)}
    live = [
        sum(bytes_ for tensor, bytes_ in size.items() if first.get(tensor, 0) <= place <= last.get(tensor, -1))
        for place in range(len(graph.operators))
    ]
    place = max(range(len(live)), key=live.__getitem__)
    return f"{operator_text(model, place)}, {live[place]:,} bytes live"


def operator_text(model: Any, place: int) -> str:
    """Name an operator of a model for people: what it is, where it stands, the tensor that it writes."""
    graph = model.subgraphs[0]
    operator = graph.operators[place]
    written = graph.tensors[int(operator.outputs[0])]
    shape = "x".join(str(int(n)) for n in written.shape)
    return f"{_kind(model, operator)} {place} writes {_short(written.name.decode())!r} ({shape})"


def _short(name: str) -> str:
    """Other converters' names tell the whole history of a tensor; the end says which it is."""
    return name.rstrip(";").rpartition(";")[2]


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def sources(content: bytes, stem: str, *, least: int, margin: float, arena: int, kernels: str) -> dict[str, str]:
    """Return a header and a source file, by name."""
    name = re.sub(r"\W", "_", stem)
    name = name if name[0].isalpha() else f"model_{name}"
    methods = [_method(operator) for operator in operators(content)]
    header = f"{stem}.h"
    lines = [content[start : start + _VALUES_A_LINE] for start in range(0, len(content), _VALUES_A_LINE)]
    values = "\n".join("    " + ", ".join(map(str, line)) + "," for line in lines)
    return {
        header: _HEADER.format(
            file=header, name=name, model_bytes=len(content), arena_bytes=arena, least=f"{least:,}", margin=margin,
            kernels=kernels, count=len(methods),
            calls=" &&\n         ".join(f"resolver.Add{method}() == 0" for method in methods),
        ),
        f"{stem}.cc": _SOURCE.format(file=f"{stem}.cc", header=header, name=name, values=values),
    }  # fmt: skip


def _method(operator: str) -> str:
    """Return what MicroMutableOpResolver calls an operator: CONV_2D is Conv2D."""
    parts = (part if part[0].isdigit() else part.capitalize() for part in operator.split("_"))
    return _UNUSUAL.get(operator, "".join(parts))
