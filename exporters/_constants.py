"""Values that a graph makes without its inputs: masks, positions, weights. They are computed before any converter.

Masks are often written into zeros, slice by slice; not every converter has a form of that. Weights that are
standardized or scaled whenever the model runs are none to a quantizer.
"""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn

from sekron_edge.nn import CapturedGraph

aten = torch.ops.aten
# These see the shape and the type of a tensor only.
_LIKE = {
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
}  # fmt: skip


_WEIGHTED = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding,
    aten.conv3d.padding, aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
    aten.linear.default,
}  # fmt: skip
# Another view of a weight is a weight to every converter.
_VIEWS = {
    aten.view.default, aten.reshape.default, aten.permute.default, aten.transpose.int, aten.t.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.default,
    aten.expand.default, aten.contiguous.default, aten.select.int, aten.slice.Tensor,
}  # fmt: skip


def made(graph: fx.Graph, constants: Collection[fx.Node]) -> set[fx.Node]:
    """Return constants, and the operations whose results depend on nothing else."""
    found: set[fx.Node] = set(constants)
    for node in graph.nodes:
        if node.op == "call_function" and (node.target in _LIKE or set(node.all_input_nodes) <= found):
            schema = getattr(node.target, "_schema", None)
            seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            if (schema is None or schema.returns) and not seeded:
                found.add(node)
    return found


def writes_constants(captured: CapturedGraph) -> bool:
    """Whether values that are made without inputs and parameters are changed in place."""
    stored = set(captured.names) - captured.parameters
    schemas = [getattr(node.target, "_schema", None) for node in made(captured.graph, stored)]
    return any(schema is not None and schema.is_mutable for schema in schemas)


def fold_constants_(module: fx.GraphModule) -> None:
    """Replace operations that need no input and no parameter by buffers; nothing may change in place any more."""
    graph = module.graph
    stored = {node: attrgetter(str(node.target))(module) for node in graph.nodes if node.op == "get_attr"}
    values: dict[fx.Node, Any] = {
        node: value
        for node, value in stored.items()
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
    }
    fixed = made(graph, values)
    for node in graph.nodes:
        if node in fixed and node not in values:
            args, kwargs = fx.map_arg(
                (node.args, node.kwargs), lambda source: values[source] if source in values else _like(source)
            )
            values[node] = node.target(*args, **kwargs)
    for place, (node, value) in enumerate(values.items()):
        if node.op != "get_attr" and isinstance(value, Tensor) and any(user not in fixed for user in node.users):
            name = f"_made_{place}"
            module.register_buffer(name, value.clone(memory_format=torch.contiguous_format), persistent=False)
            with graph.inserting_before(node):
                constant = graph.get_attr(name)
            constant.meta = dict(node.meta)
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in fixed)
    graph.eliminate_dead_code()
    module.recompile()


def computes_weights(captured: CapturedGraph) -> bool:
    """Whether a convolution or a linear layer has a weight that is computed from parameters, more than viewed."""
    return bool(_computed_weights(captured.graph, set(captured.names)))


def fold_weights_(module: fx.GraphModule) -> None:
    """Replace weights that are computed from parameters by their values."""
    graph = module.graph
    values: dict[fx.Node, Any] = {
        node: attrgetter(str(node.target))(module) for node in graph.nodes if node.op == "get_attr"
    }

    def computed(node: fx.Node) -> Any:
        if node not in values:
            args, kwargs = fx.map_arg((node.args, node.kwargs), computed)
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return values[node]

    for place, node in enumerate(_computed_weights(graph, values.keys())):
        name = f"_weight_{place}"
        value = computed(node).detach().clone(memory_format=torch.contiguous_format)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
        with graph.inserting_before(node):
            weight = graph.get_attr(name)
        weight.meta = dict(node.meta)
        node.replace_all_uses_with(weight)
    graph.eliminate_dead_code()
    module.recompile()


def _computed_weights(graph: fx.Graph, stored: Collection[fx.Node]) -> list[fx.Node]:
    fixed = made(graph, stored)
    weights = [node.args[1] for node in graph.nodes if node.target in _WEIGHTED and len(node.args) > 1]
    found = [weight for weight in weights if isinstance(weight, fx.Node) and weight in fixed and _is_computed(weight)]
    return list(dict.fromkeys(found))


def _is_computed(node: fx.Node) -> bool:
    """Whether more than views lie between a node and what is stored."""
    if node.op != "call_function":
        return False
    return node.target not in _VIEWS or any(map(_is_computed, node.all_input_nodes))


def _like(node: fx.Node) -> Tensor:
    """Return a tensor like a node's, of any values."""
    traced = node.meta["val"]
    return torch.empty(tuple(traced.shape), dtype=traced.dtype)
