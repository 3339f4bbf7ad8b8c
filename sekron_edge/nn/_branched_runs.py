"""Outputs of a model with one layer's weight changed at a time; a run begins where the change is seen first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from sekron_edge.nn._graph_runs import RunnableGraph
from sekron_edge.pytrees import Inputs, Outputs


class BranchedRuns:
    """A model on one batch, and the same with the weight of one layer changed.

    All that comes before a layer is the same whatever its weight is, so it is computed once for all layers. That takes
    half the operations of whole runs where these are spread evenly, and no copy of the model.

    Batch norms use the batch's own statistics, in the original's outputs too, as if they had been settled on it.

    Args:
        model: Run as in evaluation mode, otherwise; left as it was.
        inputs: One batch, in the form of `sekron_edge.pytrees.call`.

    Attributes:
        reference: The outputs with nothing changed.

    Raises:
        ExportError: If torch.export cannot trace the model.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self._graph = RunnableGraph(model, inputs)
        self._given = {**self._graph.held, **self._graph.given(inputs)}
        self._entering = {name: node for node, name in self._graph.names.items()}
        self._names = _other_names(model)
        self._dead = _last_uses(self._graph.operators)
        with torch.inference_mode():
            self.reference: Outputs = self._rest(dict(self._given), 0)

    def changed(self, weights: Mapping[str, Callable[[], Tensor]]) -> Iterator[tuple[str, Outputs]]:
        """Yield each layer's name, and the outputs with its weight changed, in the order in which they run.

        Args:
            weights: Makes the new weight, of the old one's shape, by the layer's name. A layer that the model does not
                run changes nothing, and comes first.
        """
        held = {name: self._places(name) for name in weights}
        waiting = {name for name, places in held.items() if places}
        yield from ((name, self.reference) for name in weights if name not in waiting)
        values = dict(self._given)
        for index, node in enumerate(self._graph.operators):
            if not waiting:
                return
            for name in [name for name in waiting if not held[name].isdisjoint(node.all_input_nodes)]:
                waiting.remove(name)
                with torch.inference_mode():
                    outputs = self._rest(values | dict.fromkeys(held[name], weights[name]()), index)
                yield name, outputs
            with torch.inference_mode():
                self._run(node, values)

    def _places(self, layer: str) -> set[fx.Node]:
        """Return where a layer's weight enters the graph: once for each name of a module that has several."""
        names = self._names.get(f"{layer}.weight", ())
        return {node for name in names if (node := self._entering.get(name)) is not None and node.users}

    def _rest(self, values: dict[fx.Node, Any], index: int) -> Outputs:
        for node in self._graph.operators[index:-1]:
            self._run(node, values)
        return self._graph.outputs(values)

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        self._graph.run(node, values)
        for dead in self._dead.get(node, ()):
            del values[dead]


def _other_names(model: nn.Module) -> dict[str, list[str]]:
    """Return all names of each parameter, by each of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: same for same in names.values() for name in same}


def _last_uses(nodes: list[fx.Node]) -> dict[fx.Node, list[fx.Node]]:
    """Return the values that nobody reads after an operator, by the operator."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for source in node.all_input_nodes:
            if source.op != "placeholder":
                last[source] = node
    dead: dict[fx.Node, list[fx.Node]] = {}
    for value, node in last.items():
        if node.op != "output" and value.op == "call_function":
            dead.setdefault(node, []).append(value)
    return dead
