"""Values that are spread over an axis before an operator that would do so itself.

LiteRT's converter changes the order of axes of the one and not of the other, and fails.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

aten = torch.ops.aten

_SPREADING = {aten.expand.default, aten.expand_as.default}
_POINTWISE = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default,
              aten.minimum.default}  # fmt: skip


def spreads(graph: fx.Graph) -> bool:
    """Whether any value is spread without need."""
    return any(_needless(node) for node in graph.nodes)


def drop_spreading_(module: fx.GraphModule) -> None:
    """Let operators spread their operands themselves, where they can."""
    for node in [node for node in module.graph.nodes if _needless(node)]:
        node.replace_all_uses_with(node.args[0])
    module.graph.eliminate_dead_code()
    module.recompile()


def _needless(node: fx.Node) -> bool:
    """Whether a node spreads a value, and each of its users has another operand of the whole shape."""
    if node.target not in _SPREADING or not node.users or not isinstance(node.args[0], fx.Node):
        return False
    narrow, wide = _value(node.args[0]), _value(node)
    if narrow is None or wide is None or narrow.ndim != wide.ndim:
        return False
    return all(user.target in _POINTWISE and _has_whole_operand(user, node, wide) for user in node.users)


def _has_whole_operand(user: fx.Node, node: fx.Node, wide: Tensor) -> bool:
    others = [source for source in user.all_input_nodes if source is not node and source.target not in _SPREADING]
    return any(value.shape == wide.shape for other in others if (value := _value(other)) is not None)


def _value(node: fx.Node) -> Tensor | None:
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None
