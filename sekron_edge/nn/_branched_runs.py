"""Outputs of a model with one layer's weight changed at a time; a run begins where the change is seen first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from sekron_edge.nn._capture import capture
from sekron_edge.pytrees import Inputs, Outputs, arguments

aten = torch.ops.aten
# Statistics of fewer values than this are noise: such a batch norm keeps its own.
_FEWEST_VALUES = 16


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
        # Decomposing by an empty table takes nothing apart, and makes operators in place plain ones: what one run
        # overwrites, another would read.
        captured = capture(model, inputs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, of its own classes
            program = captured.exported.run_decompositions({})
        self._module, self._structure = program.graph_module, program.call_spec.out_spec
        outputs = program.graph_signature.output_specs
        self._own = [number for number, spec in enumerate(outputs) if spec.kind == OutputKind.USER_OUTPUT]
        self._nodes = [node for node in program.graph.nodes if node.op != "placeholder"]
        self._given: dict[fx.Node, Any] = {}
        self._entering: dict[str, fx.Node] = {}
        leaves = iter(pytree.tree_leaves(arguments(inputs)))
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self._given[node] = next(leaves)
            else:
                held = program.state_dict if spec.target in program.state_dict else program.constants
                self._given[node] = held[str(spec.target)]
                self._entering[str(spec.target)] = node
        self._names = _other_names(model)
        self._dead = _last_uses(self._nodes)
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
        for index, node in enumerate(self._nodes):
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
        for node in self._nodes[index:]:
            if node.op == "output":
                found = fx.map_arg(node.args[0], values.__getitem__)
                return pytree.tree_unflatten([found[number] for number in self._own], self._structure)
            self._run(node, values)
        raise AssertionError("a graph ends with its output")

    def _run(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        if node.op == "output":
            return
        if node.op == "get_attr":
            values[node] = attrgetter(str(node.target))(self._module)
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        run: Any = _INSTEAD.get(node.target, node.target)
        values[node] = run(*args, **kwargs)
        for dead in self._dead.get(node, ()):
            del values[dead]


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Tensor]:
    if x.numel() < _FEWEST_VALUES * x.shape[1]:
        return (F.batch_norm(x, mean, var, weight, bias, training=False, momentum=momentum, eps=eps),)
    return (F.batch_norm(x, None, None, weight, bias, training=True, momentum=momentum, eps=eps),)


# A view holds for the strides of the traced run alone: those of outputs follow a weight's, which is another one here.
_INSTEAD: dict[Any, Callable[..., Any]] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.view.default: aten.reshape.default,
}


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
