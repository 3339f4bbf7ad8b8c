"""A layer's factors for what it really sees: least squares against the original's output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from sekron_edge.nn import Block, PairedMoments, layer_weight
from sekron_edge.pytrees import tensors
from sekron_edge.reconstruction._network import Factorized
from sekron_edge.reconstruction._streams import Streams
from sekron_edge.structure import Structure
from sekron_edge.tensor import FactorizedTensor, SeenMoments, decompose_tensor
from sekron_edge.threads import each_on_a_thread

# As shares of the inputs' mean energy; the last one corrects nothing, and refines for what the layer sees.
_RIDGES = (1e-3, 1e-2, 1e-1, float("inf"))


def solve_layer_(
    own: Factorized, layer: nn.Module, structure: Structure, streams: Streams, block: Block, node: fx.Node
) -> None:
    """Give a layer the factors of least error against the original's output, if there are better ones than its own.

    Ridges are tried on the batches that are fitted to; those that judge choose among them, and the layer's own factors.

    Args:
        own: The factorized layer; changed in place.
        layer: The original one.
        structure: Of one group's weight, before adjacent factors were merged.
        streams: At the block.
        block: That the layer is in.
        node: The layer's operator.
    """
    weight = layer_weight(layer).double()
    fitted, judging = (_moments(layer, streams, block, node, some) for some in (streams.fitted_to, streams.judges))

    def approximated(ridge: float) -> list[FactorizedTensor]:
        wanted, sigma = fitted.target(weight, ridge)
        return [decompose_tensor(group, structure, metric) for group, metric in zip(wanted, sigma, strict=True)]

    tried = each_on_a_thread(approximated, _RIDGES)
    errors = [judging.error(weight, torch.stack([group.reconstruct() for group in groups])) for groups in tried]
    best = min(range(len(tried)), key=errors.__getitem__)
    if errors[best] < judging.error(weight, _groups_of(own, len(weight))):
        own.take_([group.simplified() for group in tried[best]])


def _moments(layer: nn.Module, streams: Streams, block: Block, node: fx.Node, batches: Sequence[int]) -> SeenMoments:
    size = max(len(value) for value in tensors(list(streams.original[0].values())) if value.ndim)
    moments = PairedMoments(layer, size * len(batches))
    for original, seen in streams.inputs_of(block, node, batches):
        moments.add(original, seen)
    return moments.result()


def _groups_of(own: Factorized, groups: int) -> Tensor:
    """Return the weight that factors stand for, with its groups apart and outputs first."""
    factors = [own.factor_values(k).detach() for k in range(len(own.structure.factors))]
    assert len(factors[0]) == groups
    return torch.stack([FactorizedTensor(own.structure, values).reconstruct() for values in zip(*factors, strict=True)])
