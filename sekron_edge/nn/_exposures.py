"""The changes that make layers of weights that a model uses in other ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from sekron_edge import pytrees
from sekron_edge.errors import UnsupportedLayerError
from sekron_edge.nn._attention import ProjectedAttention
from sekron_edge.nn._capture import CapturedGraph, capture
from sekron_edge.nn._functional import FunctionalWeight
from sekron_edge.nn._outputs import outputs_for
from sekron_edge.nn._recurrence import MOST_STEPS, Recurrent, UnrolledRecurrence
from sekron_edge.nn._rewrite import supported_layers
from sekron_edge.nn._weight_operators import WeightOperator, weight_operator

_LAYERS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
}


@dataclass(frozen=True)
class Change:
    """A module or a parameter, by its qualified name, and the module that takes its place.

    ``bias`` names a parameter that the new module took over, and that its old place must give up.
    """

    name: str
    module: nn.Module
    bias: str | None = None

    def apply(self, model: nn.Module) -> None:
        """Change a model in place."""
        owner, _, own = self.name.rpartition(".")
        holder = model.get_submodule(owner)
        holder._parameters.pop(own, None)
        holder._modules[own] = self.module.train(holder.training)
        if self.bias is not None:
            owner, _, own = self.bias.rpartition(".")
            model.get_submodule(owner)._parameters[own] = None


def attentions(model: nn.Module, inputs: pytrees.Inputs) -> Iterator[Change]:
    """Yield attention with layers as its projections, for every ``nn.MultiheadAttention`` that runs."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # nested tensors are for the fused kernel that reads parameters
    for name, (module, calls) in _called(model, inputs, nn.MultiheadAttention).items():
        packed = all(query is key is value for query, key, value in map(_queries_keys_values, calls))
        try:
            yield Change(name, ProjectedAttention(module, packed=packed))
        except UnsupportedLayerError:
            continue  # its rows in the plan say that it is used through a function


def _queries_keys_values(call: tuple[tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    args, kwargs = call
    names = ("query", "key", "value")
    return [args[position] if position < len(args) else kwargs.get(name) for position, name in enumerate(names)]


def recurrences(model: nn.Module, inputs: pytrees.Inputs) -> Iterator[Change]:
    """Yield recurrences with layers as their matrices, for those that run few enough steps."""
    for name, (module, calls) in _called(model, inputs, nn.LSTM, nn.GRU, nn.RNN).items():
        sequences = [args[0] if args else kwargs.get("input") for args, kwargs in calls]
        if all(isinstance(each, Tensor) and _steps(module, each) <= MOST_STEPS for each in sequences):
            try:
                yield Change(name, UnrolledRecurrence(module))
            except UnsupportedLayerError:
                continue


def _steps(module: Recurrent, sequence: Tensor) -> int:
    return sequence.shape[1 if module.batch_first and sequence.ndim == 3 else 0]


def _called(model: nn.Module, inputs: pytrees.Inputs, *kinds: type[nn.Module]) -> dict[str, tuple[Any, list[Any]]]:
    """Return the modules of some kinds that a model runs, with the arguments of their calls, by name."""
    calls: dict[str, tuple[Any, list[Any]]] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.setdefault(name, (module, []))[1].append((args, kwargs))

    hooks = [
        module.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: note(name, module, args, kwargs), with_kwargs=True
        )
        for name, module in model.named_modules()
        if type(module) in kinds and name
    ]
    if hooks:
        try:
            outputs_for(model, inputs)
        finally:
            for hook in hooks:
                hook.remove()
    return calls


def functional_weights(model: nn.Module, inputs: pytrees.Inputs) -> Iterator[Change]:
    """Yield layers for modules that are just one, and for parameters that are handed to functions."""
    captured = capture(model, inputs)
    supported, refused = supported_layers(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    layers = {modules[name] for name in (*supported, *refused)}
    leaves = {path for path, module in modules.items() if module in layers}
    found: dict[fx.Node, list[tuple[fx.Node, WeightOperator]]] = {}
    for node in captured.graph.nodes:
        if node.op == "call_function" and not leaves & {path for path, _ in _stack(node).values()}:
            operator = weight_operator(node, captured)
            if operator is not None and operator.is_layer:
                found.setdefault(operator.weight, []).append((node, operator))
    taken: set[str] = set()
    for weight, uses in found.items():
        change = _whole_module(uses, captured) or _weight_in_place(weight, uses, captured)
        if change is not None and change.name not in taken:
            taken.add(change.name)
            yield change


def _stack(node: fx.Node) -> dict[str, tuple[str, Any]]:
    return node.meta.get("nn_module_stack") or {}


def _whole_module(uses: list[tuple[fx.Node, WeightOperator]], captured: CapturedGraph) -> Change | None:
    """Return a layer for a module that computes nothing but a convolution or a linear layer of its input."""
    if len(uses) != 1:
        return None
    node, operator = uses[0]
    stack = _stack(node)
    if not stack:
        return None
    call, (path, _) = list(stack.items())[-1]
    inside = [each for each in captured.graph.nodes if each.op == "call_function" and call in _stack(each)]
    computing = [each for each in inside if not captured.is_constant(each)]
    calls = {key for each in captured.graph.nodes for key, (other, _) in _stack(each).items() if other == path}
    if not path or computing != [node] or len(calls) > 1:
        return None
    bias = None if operator.bias is None else captured.value(operator.bias)
    return Change(path, _layer(operator, captured.value(operator.weight), bias))


def _weight_in_place(
    weight: fx.Node, uses: list[tuple[fx.Node, WeightOperator]], captured: CapturedGraph
) -> Change | None:
    """Return a layer for a parameter that is handed to functions, all of them alike, and to nothing else."""
    operators = [operator for _, operator in uses]
    first = operators[0]
    alike = all((one.kind, one.geometry, one.bias) == (first.kind, first.geometry, first.bias) for one in operators)
    if weight not in captured.parameters or not alike or set(weight.users) != {node for node, _ in uses}:
        return None
    name, bias_name, bias = captured.names[weight], None, None
    if first.bias in captured.parameters and set(first.bias.users) == set(weight.users):
        assert first.bias is not None
        bias_name, bias = captured.names[first.bias], captured.value(first.bias)
    return Change(name, FunctionalWeight(_layer(first, captured.value(weight), bias)), bias_name)


def _layer(operator: WeightOperator, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a layer that computes an operator with a weight and a bias."""
    layer: nn.Module
    has_bias = bias is not None
    if operator.geometry is None:
        layer = nn.Linear(weight.shape[1], weight.shape[0], has_bias)
    else:
        own = operator.geometry
        inputs, outputs = weight.shape[1] * own.groups, weight.shape[0]
        if own.transposed:
            inputs, outputs = weight.shape[0], weight.shape[1] * own.groups
        settings: dict[str, Any] = {"stride": own.stride, "padding": own.padding, "dilation": own.dilation}
        settings |= {"groups": own.groups, "bias": has_bias}
        settings |= {"output_padding": own.output_padding} if own.transposed else {}
        layer = _LAYERS[operator.kind](inputs, outputs, tuple(weight.shape[2:]), **settings)
    layer.get_parameter("weight").data = weight.detach().clone()
    if bias is not None:
        layer.get_parameter("bias").data = bias.detach().clone()
    return layer
