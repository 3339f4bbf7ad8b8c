"""How much a .tflite file computes, and in which precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod

from sekron_edge.artifacts import Precision

from ._graph import Graph, Operator, Tensor, TFLiteFile

# Input, four matrices for it, four for the state.
_LSTM_MATRICES = range(1, 9)
_SMALL_WEIGHTS: dict[str, Precision] = {"INT8": "int8-weights", "INT4": "int4-weights"}


def macs(file: TFLiteFile) -> int | None:
    """Count the multiply-accumulates of an inference: convolutions, products with matrices, recurrences.

    None where a graph that an operator may run, once, often or not at all, has some.
    """
    called, waiting = set[int](), [file.main]
    while waiting:
        new = {number for operator in waiting.pop().operators for number in operator.calls} - called
        called |= new
        waiting += [file.graphs[number] for number in new]
    if any(_graph_macs(file.graphs[number]) for number in called):
        return None
    return _graph_macs(file.main)


def precision(file: TFLiteFile) -> Precision:
    """Return the precision of most of what is computed; without multiply-accumulates that of the first input.

    ``int8`` where activations are, ``int16x8`` where they have 16 bits: with floats beside int8 weights it is the
    weights that are small.
    """
    counted: Counter[Precision] = Counter()
    for graph in file.graphs:
        for operator in graph.operators:
            if operator.kind in _COUNTED:
                counted[_computed_in(graph, operator)] += _COUNTED[operator.kind](graph, operator)
    if counted.total():
        return counted.most_common(1)[0][0]
    first = next((file.main.tensors[number] for number in file.main.inputs), None)
    return "fp32" if first is None or first.kind.startswith("FLOAT") else "int8"


def _computed_in(graph: Graph, operator: Operator) -> Precision:
    # A transposed convolution reads the shape of its output first.
    activations = graph.read(operator, 2 if operator.kind == "TRANSPOSE_CONV" else 0)
    weights = graph.read(operator, 1)
    if activations is None or activations.kind in ("INT8", "UINT8"):
        return "int8"
    if activations.kind == "INT16":
        return "int16x8"
    return "fp32" if weights is None else _SMALL_WEIGHTS.get(weights.kind, "fp32")


def _graph_macs(graph: Graph) -> int:
    return sum(_COUNTED[operator.kind](graph, operator) for operator in graph.operators if operator.kind in _COUNTED)


def _shape(tensor: Tensor | None) -> tuple[int, ...]:
    return () if tensor is None else tensor.shape


def _elements(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.elements


def _outputs_times_a_row(graph: Graph, operator: Operator) -> int:
    """Weights are (outputs, ..., inputs)."""
    return _elements(graph.written(operator)) * prod(_shape(graph.read(operator, 1))[1:])


def _depthwise(graph: Graph, operator: Operator) -> int:
    """Weights are (1, height, width, channels)."""
    return _elements(graph.written(operator)) * prod(_shape(graph.read(operator, 1))[1:-1])


def _transposed(graph: Graph, operator: Operator) -> int:
    """Weights are (outputs, height, width, inputs): every input is multiplied with all but the last."""
    return _elements(graph.read(operator, 2)) * prod(_shape(graph.read(operator, 1))[:-1])


def _product(graph: Graph, operator: Operator) -> int:
    """The axis that is summed is in the left matrix, and not in the result, whichever of both is transposed."""
    left, result = _shape(graph.read(operator, 0))[-2:], graph.written(operator)
    rows = _shape(result)[-2:-1]
    return _elements(result) * (prod(left) // rows[0]) if rows and rows[0] > 0 else 0


def _filters(graph: Graph, operator: Operator) -> int:
    """An SVDF's weights over features are (filters, inputs), those over time (filters, steps)."""
    batch = _shape(graph.read(operator, 0))[:-1]
    return prod(batch) * (_elements(graph.read(operator, 1)) + _elements(graph.read(operator, 2)))


def _recurrence(graph: Graph, operator: Operator) -> int:
    """Every step of every sequence multiplies with all matrices."""
    steps = prod(_shape(graph.read(operator, 0))[:-1])
    return steps * sum(_elements(graph.read(operator, place)) for place in _LSTM_MATRICES)


_COUNTED: dict[str, Callable[[Graph, Operator], int]] = {
    "CONV_2D": _outputs_times_a_row,
    "FULLY_CONNECTED": _outputs_times_a_row,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "BATCH_MATMUL": _product,
    "SVDF": _filters,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrence,
}
