"""The nodes of a traced model that stay in float: those of layers which are kept so, and what lies between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from .._around_floats import Step, staying_in_float

aten = torch.ops.aten
_WITH_WEIGHTS = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default, aten.linear.default,
    aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input,
}  # fmt: skip
_ADDITIONS = {aten.add.Tensor, aten.add_.Tensor}


class Rounded:
    """Says of a node whether a quantizer may round it: the filter of ExecuTorch's quantizers.

    Args:
        keep_float: Names of layers of the model; the weights that a node reads say whose it is.
    """

    def __init__(self, keep_float: Sequence[str]) -> None:
        self._below = tuple(f"{name}." for name in keep_float)
        self._graph: fx.Graph | None = None
        self._floats: set[fx.Node] = set()

    def __call__(self, node: fx.Node) -> bool:
        """Return whether ``node`` may be rounded."""
        if self._graph is not node.graph:
            self._graph, self._floats = node.graph, self._in_float(node.graph)
        return node not in self._floats

    def _in_float(self, graph: fx.Graph) -> set[fx.Node]:
        constants: dict[fx.Node, bool] = {}  # each with whether a kept layer's weight is in it
        computed: list[fx.Node] = []
        for node in graph.nodes:
            if node.op == "get_attr":
                constants[node] = self._is_kept(str(node.target))
            elif node.op == "call_function":
                read = node.all_input_nodes
                if read and all(one in constants for one in read):
                    constants[node] = any(constants[one] for one in read)
                else:
                    computed.append(node)
        steps = [self._step(node, constants) for node in computed]
        if not any(step.role == "kept" for step in steps):
            raise ValueError("the layers to be kept in float leave no operator in the graph")
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        (output,) = (node for node in graph.nodes if node.op == "output")
        return {computed[place] for place in staying_in_float(steps, inputs, output.all_input_nodes).steps}

    def _is_kept(self, attribute: str) -> bool:
        # What was written with plainer operators holds the model as `program`.
        return attribute.removeprefix("program.").startswith(self._below)

    @staticmethod
    def _step(node: fx.Node, constants: dict[fx.Node, bool]) -> Step:
        read = tuple(one for one in node.all_input_nodes if one not in constants)
        if any(constants.get(one, False) for one in node.all_input_nodes):
            return Step(read, (node,), "kept")
        adds = node.target in _ADDITIONS and len(read) > 1 and len({one.meta["val"].shape for one in read}) == 1
        return Step(read, (node,), "rounded" if adds or node.target in _WITH_WEIGHTS else "passing")
