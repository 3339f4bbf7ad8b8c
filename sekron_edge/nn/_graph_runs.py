"""A model as operators that run one by one, with any values in the places of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
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


class RunnableGraph:
    """The operators of a model, for batches of one size.

    Args:
        model: Run as in evaluation mode; left as it was.
        inputs: One batch, in the form of `sekron_edge.pytrees.call`. Shapes of other batches must be the same.

    Attributes:
        operators: In the order in which they run; the last one is the graph's output.
        inputs: The graph's inputs, in the order of the leaves of the model's inputs.
        held: Parameters, buffers and constants, by where they enter the graph.
        names: Their qualified names in the model.

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
        self.operators: list[fx.Node] = [node for node in program.graph.nodes if node.op != "placeholder"]
        self.inputs: list[fx.Node] = []
        self.held: dict[fx.Node, Any] = {}
        self.names: dict[fx.Node, str] = {}
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind == InputKind.USER_INPUT:
                self.inputs.append(node)
            else:
                values = program.state_dict if spec.target in program.state_dict else program.constants
                self.held[node] = values[str(spec.target)]
                self.names[node] = str(spec.target)

    def given(self, inputs: Inputs) -> dict[fx.Node, Any]:
        """Return the values of the graph's inputs for a batch."""
        return dict(zip(self.inputs, pytree.tree_leaves(arguments(inputs)), strict=True))

    def run(self, node: fx.Node, values: dict[fx.Node, Any]) -> None:
        """Run one operator on the values of those before it; its own joins them.

        Batch norms use the batch's own statistics, as if they had been settled on it.
        """
        if node.op == "output":
            return
        if node.op == "get_attr":
            values[node] = attrgetter(str(node.target))(self._module)
            return
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        run: Any = _INSTEAD.get(node.target, node.target)
        values[node] = run(*args, **kwargs)

    def outputs(self, values: Mapping[fx.Node, Any]) -> Outputs:
        """Return the model's outputs, once all operators have run."""
        found: Any = fx.map_arg(self.operators[-1].args[0], values.__getitem__)
        return pytree.tree_unflatten([found[number] for number in self._own], self._structure)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> tuple[Tensor]:
    if x.numel() < _FEWEST_VALUES * x.shape[1]:
        return (F.batch_norm(x, mean, var, weight, bias, training=False, momentum=momentum, eps=eps),)
    return (F.batch_norm(x, None, None, weight, bias, training=True, momentum=momentum, eps=eps),)


# A view holds for the strides of the traced run alone: those of outputs follow a weight's, which may be another one.
_INSTEAD: dict[Any, Callable[..., Any]] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten.view.default: aten.reshape.default,
}
