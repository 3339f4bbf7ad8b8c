"""Where most of a model's memory is live, so that people know which tensor to make smaller."""

from __future__ import annotations

from ..tflite._graph import Graph


def peak_operator(graph: Graph) -> str:
    """Return the operator that most bytes of activations are live at, and the tensor that it writes."""
    if not graph.operators:
        return "no operator"
    count = len(graph.operators)
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.outputs, count - 1)
    for place, operator in enumerate(graph.operators):
        first = dict.fromkeys(operator.outputs, place) | first
        last |= {tensor: max(place, last.get(tensor, 0)) for tensor in (*operator.inputs, *operator.outputs)}
    live = [0] * count
    for number, end in last.items():
        if number < 0 or graph.tensors[number].data is not None:
            continue
        for place in range(first.get(number, 0), end + 1):
            live[place] += graph.tensors[number].size_bytes
    place = max(range(count), key=live.__getitem__)
    return f"{graph.text(place)}, {live[place]:,} bytes live"
