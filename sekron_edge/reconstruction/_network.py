"""The decomposed network in the original's graph: what enters where a parameter did."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch import Tensor, fx, nn

from sekron_edge.nn import Block, FactorizedConv, FactorizedLinear, RunnableGraph

Factorized = FactorizedConv | FactorizedLinear


class DecomposedNetwork:
    """A decomposed model's parameters by where they enter the original's graph.

    A factorized layer runs with the kernel that its factors stand for: its own operators are not in that graph, and
    gradients reach the factors all the same.

    Args:
        model: With the original's modules, but for the factorized ones; its parameters are read at every run.
        graph: Of the original.
    """

    def __init__(self, model: nn.Module, graph: RunnableGraph) -> None:
        modules = dict(model.named_modules(remove_duplicate=False))
        tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors |= dict(model.named_buffers(remove_duplicate=False))
        self.graph = graph
        self.layers: dict[fx.Node, tuple[str, Factorized]] = {}
        self._tensors: dict[fx.Node, Tensor] = {}
        for node, name in graph.names.items():
            layer, _, attribute = name.rpartition(".")
            module = modules.get(layer)
            if attribute == "weight" and isinstance(module, Factorized):
                self.layers[node] = layer, module
            elif name in tensors:
                self._tensors[node] = tensors[name]
        runs = Counter[int]()
        for node, (_, module) in self.layers.items():
            runs[id(module)] += len(node.users)
        self.runs = {name: runs[id(module)] for name, module in self.layers.values()}

    def entering(self, block: Block) -> dict[fx.Node, Any]:
        """Return the values of a block's parameters, buffers and constants."""
        return {node: self._value(node) for node in block.held}

    def parameters_of(self, block: Block) -> list[nn.Parameter]:
        """Return what may be fitted: factors, and the vectors (biases, norms) that this block alone reads, once."""
        fitted: list[nn.Parameter] = []
        for node in block.held:
            if len(node.users) > 1:
                continue
            if node in self.layers:
                name, module = self.layers[node]
                if self.runs[name] == 1:
                    fitted += module.weights
            else:
                value = self._tensors.get(node)
                if isinstance(value, nn.Parameter) and value.ndim == 1:
                    fitted.append(value)
        return list({id(one): one for one in fitted}.values())

    def _value(self, node: fx.Node) -> Any:
        if node in self.layers:
            return self.layers[node][1].reconstruct()
        return self._tensors.get(node, self.graph.held[node])
