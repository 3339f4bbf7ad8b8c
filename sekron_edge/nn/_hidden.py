"""Weights outside of layers: each gets a name, and the reason why it stays as it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import fx, nn

from sekron_edge.nn._capture import CapturedGraph, shape_of
from sekron_edge.nn._operations import HiddenLayer
from sekron_edge.nn._weight_operators import RECURRENCES, WeightOperator

_SHOWN = 3


class HiddenLayers:
    """The weights that a graph multiplies with outside of layers, named as they are met.

    Args:
        model: The model of the graph.
        captured: Its graph.
    """

    def __init__(self, model: nn.Module, captured: CapturedGraph) -> None:
        self._model = model
        self._captured = captured
        self._operators: dict[str, WeightOperator] = {}
        self._names: dict[fx.Node, str] = {}

    def name(self, node: fx.Node, operator: WeightOperator) -> str:
        """Return the name of an operator's weight: that of its parameter, or of the module that computes it."""
        if operator.weight not in self._names:
            name = self._captured.names.get(operator.weight) or self._of_module(node) or operator.kind
            unique, count = name, 2
            while unique in self._operators:
                unique, count = f"{name} ({count})", count + 1
            self._names[operator.weight] = unique
            self._operators[unique] = operator
        return self._names[operator.weight]

    def _of_module(self, node: fx.Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return str(stack[-1][0]) if stack else ""

    def layers(self, *, called: Collection[str]) -> Mapping[str, HiddenLayer]:
        """Return all weights by name.

        Args:
            called: Names of the layers whose parameters are counted with these.
        """
        counted = {id(parameter) for name in called for parameter in self._model.get_submodule(name).parameters()}
        layers = {}
        for name, operator in self._operators.items():
            sources = self._parameters(operator)
            held = [self._model.get_parameter(source) for source in sources]
            own = {id(parameter): parameter.numel() for parameter in held if id(parameter) not in counted}
            counted |= own.keys()
            layers[name] = HiddenLayer(
                kind=operator.kind,
                weight_shape=shape_of(operator.weight),
                parameters=sum(own.values()),
                reason=self._reason(operator),
                sources=tuple(sources),
            )
        return layers

    def _parameters(self, operator: WeightOperator) -> list[str]:
        """Return the names of the parameters that an operator's constants are computed from."""
        captured = self._captured
        sources = [source for constant in operator.constants for source in captured.sources(constant)]
        return [captured.names[source] for source in dict.fromkeys(sources) if source in captured.parameters]

    def _reason(self, operator: WeightOperator) -> str:
        captured, weight = self._captured, operator.weight
        if operator.kind in RECURRENCES:
            reason = f"{operator.kind} runs its matrices within one operator; see sekron_edge.expose_layers"
        elif operator.kind == "MatMul":
            reason = "a matrix product with a parameter, not a layer: write it as nn.Linear to have it compressed"
        elif not operator.is_layer:
            reason = f"{operator.kind} is not supported: it looks values up, or multiplies by two inputs"
        elif weight not in captured.names:
            names = [captured.names[source] for source in captured.sources(weight)]
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            reason = f"its weight is computed from {shown} at every run: keep the computed weight in a layer instead"
        elif weight not in captured.parameters:
            reason = "its weight is a constant, not a parameter"
        elif operator.is_depthwise:
            reason = "depthwise: one input channel a group leaves nothing to factorize"
        else:
            reason = "it is used through a function, not called as a layer; see sekron_edge.expose_layers"
        return reason
