"""A model's graph through torch.export, and what is constant in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from sekron_edge import pytrees
from sekron_edge.nn._exportable_graph import require_exportable, tracing_error
from sekron_edge.nn._modes import evaluation_mode, unfused_attention


class CapturedGraph:
    """The ATen operators that a model runs on inputs of certain shapes, in evaluation mode.

    Attributes:
        exported: What torch.export gave.
        graph: In the order they run.
        names: The qualified names of parameters and buffers, by their placeholders.
    """

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        _inline_blocks(exported.graph_module)
        self.exported = exported
        signature = exported.graph_signature
        targets: Mapping[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.graph: fx.Graph = exported.graph
        given = set(signature.user_inputs)
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self.names: dict[fx.Node, str] = {node: targets[node.name] for node in placeholders if node.name in targets}
        self.inputs: list[fx.Node] = [node for node in placeholders if node.name in given]
        self.parameters = {node for node in self.names if node.name in signature.inputs_to_parameters}
        self._values: dict[str, Any] = {**exported.state_dict, **exported.constants}
        self._constants: set[fx.Node] = set(placeholders) - set(self.inputs)
        for node in self.graph.nodes:
            known = all(source in self._constants for source in node.all_input_nodes)
            if node.op == "get_attr" or (node.op == "call_function" and known):
                self._constants.add(node)

    def is_constant(self, node: fx.Node) -> bool:
        """Return whether a value is the same for all inputs: a parameter, a buffer, or computed from these alone."""
        return node in self._constants

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """Return the placeholders of the parameters and buffers that a constant is computed from."""
        if node in self.names:
            return [node]
        return list(dict.fromkeys(source for each in node.all_input_nodes for source in self.sources(each)))

    def value(self, node: fx.Node) -> Any:
        """Compute a constant."""
        if node in self.names:
            return self._values[self.names[node]]
        assert node.op == "call_function"
        assert callable(node.target)
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
        return node.target(*args, **kwargs)


def capture(model: nn.Module, inputs: pytrees.Inputs) -> CapturedGraph:
    """Trace a model in evaluation mode.

    Args:
        model: Left as it was.
        inputs: As `pytrees.arguments` takes them; the graph is for their shapes.

    Raises:
        ExportError: If torch.export cannot trace it, which every format's exporter needs, or no file can hold the graph
            (`require_exportable`).
    """
    args, kwargs = pytrees.arguments(inputs)
    try:
        with torch.no_grad(), evaluation_mode(model), unfused_attention():
            captured = CapturedGraph(torch.export.export(model, args, kwargs))
    except Exception as error:  # torch.export raises whatever its tracing raises
        raise tracing_error(error, type(model).__name__) from error
    require_exportable(captured.exported, type(model).__name__)
    return captured


def _inline_blocks(module: fx.GraphModule) -> None:
    """Put the operators of ``with torch.autocast(...)`` and ``torch.set_grad_enabled(...)`` blocks in their places."""
    blocks = {
        torch.ops.higher_order.wrap_with_autocast: 4,
        torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
    }
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target not in blocks:
            continue
        skipped = blocks[node.target]
        block = node.args[skipped]
        assert isinstance(block, fx.Node)
        inner = module.get_submodule(str(block.target))
        assert isinstance(inner, fx.GraphModule)
        _inline_blocks(inner)
        placeholders = [each for each in inner.graph.nodes if each.op == "placeholder"]
        values = dict(zip(placeholders, node.args[skipped + 1 :], strict=True))
        with module.graph.inserting_before(node):
            results: Any = module.graph.graph_copy(inner.graph, values)
        for user in list(node.users):  # getitem, because a block gives a tuple
            user.replace_all_uses_with(results[user.args[1]])
            module.graph.erase_node(user)
        module.graph.erase_node(node)
    module.recompile()


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor, or of the first of its tensors."""
    value = tensor_of(node)
    return () if value is None else tuple(int(size) for size in value.shape)


def tensor_of(node: fx.Node) -> Tensor | None:
    """Return a node's tensor as it was traced, without values; the first one of several."""
    value = node.meta.get("val")
    if isinstance(value, tuple | list):
        value = next((each for each in value if isinstance(each, Tensor)), None)
    return value if isinstance(value, Tensor) else None
