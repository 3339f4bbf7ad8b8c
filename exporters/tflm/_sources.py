"""What firmware needs of a model: an aligned array, the operators to register, the size of the arena."""

from __future__ import annotations

import re

from sekron_edge.errors import ExportError

from ..tflite._graph import Operator, TFLiteFile

ETHOS_U = "ethos-u"
_VALUES_A_LINE = 20
# What MicroMutableOpResolver calls operators where their names do not say it, and its own.
_UNUSUAL = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
CUSTOM_OPERATORS = {
    "CIRCULAR_BUFFER": "CircularBuffer",
    "TFLM_DECODE": "Decode",
    "TFLite_Detection_PostProcess": "DetectionPostprocess",
    ETHOS_U: "EthosU",
    **{
        f"Signal{name}": name
        for name in (
            "Delay", "Energy", "FftAutoScale", "FilterBank", "FilterBankLog", "FilterBankSpectralSubtraction",
            "FilterBankSquareRoot", "Framer", "Irfft", "OverlapAdd", "PCAN", "Rfft", "Stacker", "Window",
        )
    },
}  # fmt: skip

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


def sources(
    content: bytes, file: TFLiteFile, stem: str, *, least: int, margin: float, arena: int, kernels: str
) -> dict[str, str]:
    """Return a header and a source file, by name.

    Raises:
        ExportError: If an operator is registered in a way that is not known here; names it.
    """
    name = re.sub(r"\W", "_", stem)
    name = name if name[0].isalpha() else f"model_{name}"
    methods = sorted({_method(operator) for operator in file.operators()})
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


def _method(operator: Operator) -> str:
    """Return what MicroMutableOpResolver calls an operator: CONV_2D is Conv2D."""
    if operator.custom:
        if operator.kind not in CUSTOM_OPERATORS:
            raise ExportError(
                f"tflm: no method of MicroMutableOpResolver is known for the operator {operator.kind!r}; "
                "write the sources by hand"
            )
        return CUSTOM_OPERATORS[operator.kind]
    parts = (part if part[0].isdigit() else part.capitalize() for part in operator.kind.split("_"))
    return _UNUSUAL.get(operator.kind, "".join(parts))
