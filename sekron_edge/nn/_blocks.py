"""A model's graph cut into blocks, where as few values as possible cross from one to the next."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from sekron_edge.nn._graph_runs import RunnableGraph

aten = torch.ops.aten
_WEIGHTED = {
    aten.linear.default,
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.convolution.default,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
# A cut is where fewest values are alive among the operators so many layers before and behind it. Residual blocks have
# up to three layers on their way; long ways around (a U-Net's, an image added at the end) are alive through all.
_LAYERS_AROUND = 3


@dataclass(frozen=True)
class Block:
    """Operators that run together.

    Attributes:
        operators: In the order in which they run.
        held: Where the parameters, buffers and constants that they read enter the graph.
        alive: The values, of this block and of those before, that something behind it reads.
        results: Those of them that this block computes.
    """

    operators: tuple[fx.Node, ...]
    held: tuple[fx.Node, ...]
    alive: tuple[fx.Node, ...]
    results: tuple[fx.Node, ...]


def blocks_of(graph: RunnableGraph) -> list[Block]:
    """Cut a graph into blocks of one layer or more: a residual block, a layer with its activation."""
    operators = graph.operators[:-1]
    alive = _alive_after(graph)
    layers = [index for index, node in enumerate(operators) if node.target in _WEIGHTED]
    counts = [len(values) for values in alive]
    cuts: list[int] = []
    for index in range(len(operators)):
        done = bisect_right(layers, index)
        first = layers[done - _LAYERS_AROUND] if done > _LAYERS_AROUND else 0
        last = layers[done + _LAYERS_AROUND] if done + _LAYERS_AROUND < len(layers) else len(operators)
        if done and counts[index] == min(counts[first:last]):
            if cuts and bisect_right(layers, cuts[-1]) == done:
                cuts[-1] = index  # activations belong to the layer before them
            else:
                cuts.append(index)
    if len(operators) - 1 not in cuts:
        if cuts and bisect_right(layers, cuts[-1]) == len(layers):
            cuts.pop()  # what follows the last layer is no block of its own
        cuts.append(len(operators) - 1)
    starts = [0, *(cut + 1 for cut in cuts[:-1])]
    return [_block(graph, operators[start : cut + 1], alive[cut]) for start, cut in zip(starts, cuts, strict=True)]


def _block(graph: RunnableGraph, operators: Sequence[fx.Node], alive: tuple[fx.Node, ...]) -> Block:
    own = set(operators)
    return Block(
        operators=tuple(operators),
        held=tuple(dict.fromkeys(one for node in operators for one in node.all_input_nodes if one in graph.held)),
        alive=alive,
        results=tuple(node for node in alive if node in own),
    )


def _alive_after(graph: RunnableGraph) -> list[tuple[fx.Node, ...]]:
    """Return, for each operator, the values that depend on the inputs and that operators behind it read."""
    last = {source: index for index, node in enumerate(graph.operators) for source in node.all_input_nodes}
    alive = [node for node in graph.inputs if node in last]
    computed = set(graph.inputs)
    found = []
    for index, node in enumerate(graph.operators[:-1]):
        if not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
            alive.append(node)
        alive = [value for value in alive if last.get(value, -1) > index]
        found.append(tuple(alive))
    return found
