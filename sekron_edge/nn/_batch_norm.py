"""Batch norms that disappear into the factors before them, or become convolutions, for export."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FactorizedConv | FactorizedLinear) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms_(model: nn.Module) -> list[str]:
    """Fold each batch norm that follows a factorized layer into it, where one factor has all output channels.

    A compiler folds a batch norm into the convolution before it, but not through a permute or another factor. The
    outputs in evaluation mode stay the same.

    Args:
        model: Changed in place; in evaluation mode. A model that cannot be traced (its control flow depends on data)
            is left as it is.

    Returns:
        The names of the batch norms that were folded.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # noqa: BLE001  (whatever a user's forward raises when it is given a proxy)
        return []
    modules = dict(model.named_modules(remove_duplicate=False))
    folded = []
    for layer, name in list(_followed(graph, modules)):
        norm = modules[name]
        assert isinstance(norm, _BatchNorm)
        if norm.running_mean is None or norm.running_var is None or not layer.scale_outputs_(*scale_and_shift(norm)):
            continue
        parent, _, child = name.rpartition(".")
        setattr(modules[parent], child, nn.Identity())
        folded.append(name)
    return folded


def separate_batch_norms_(model: nn.Module) -> list[str]:
    """Replace each batch norm of images that does not fold into a convolution by a depthwise convolution of one tap.

    Runtimes have fast kernels for those, which also take the activation that follows. Converters turn a norm by itself
    into two or three operators. The outputs in evaluation mode stay the same.

    Args:
        model: Changed in place; in evaluation mode. A model that cannot be traced is left as it is.

    Returns:
        The names of the batch norms that were replaced.
    """
    names = separate_batch_norms(model)
    for name in names:
        norm = model.get_submodule(name)
        assert isinstance(norm, _BatchNorm)
        scale, shift = scale_and_shift(norm)
        depthwise = nn.Conv2d(norm.num_features, norm.num_features, 1, groups=norm.num_features)
        depthwise.weight = nn.Parameter(scale.reshape(-1, 1, 1, 1))
        depthwise.bias = nn.Parameter(shift)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, depthwise.eval())
    return names


def separate_batch_norms(model: nn.Module) -> list[str]:
    """Return the names of the batch norms of images that fold into no layer before them, in the order they run in.

    Args:
        model: Left as it is. For a model that cannot be traced, none are named.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # noqa: BLE001  (whatever a user's forward raises when it is given a proxy)
        return []
    modules = dict(model.named_modules(remove_duplicate=False))
    folding = {name for layer, name in _followed(graph, modules) if layer.structure.whole_outputs}
    separate = []
    for node in graph.nodes:
        name = str(node.target)
        norm = modules.get(name) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or name in folding:
            continue
        if not _follows_convolution(node.args[0], modules):
            separate.append(name)
    return list(dict.fromkeys(separate))


def _follows_convolution(source: fx.node.Argument, modules: dict[str, nn.Module]) -> bool:
    """Whether a batch norm follows a layer that converters fold it into."""
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return False
    return isinstance(modules[str(source.target)], nn.modules.conv._ConvNd)


def _followed(graph: fx.Graph, modules: dict[str, nn.Module]) -> Iterator[tuple[FactorizedConv, str]]:
    """Yield each layer that one batch norm follows, both called once, and the batch norm's name."""
    calls = [modules[str(node.target)] for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        layer, user = modules[str(node.target)], next(iter(node.users))
        if not isinstance(layer, FactorizedConv) or user.op != "call_module":
            continue
        norm = modules[str(user.target)]
        if isinstance(norm, _BatchNorm) and calls.count(layer) == calls.count(norm) == 1:
            yield layer, str(user.target)


def scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach()
