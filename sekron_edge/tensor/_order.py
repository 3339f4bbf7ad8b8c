"""The order of channels: it is free where a neighbouring layer can absorb it, and splits of channels depend on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sekron_edge.errors import StructureError
from sekron_edge.structure import Structure
from sekron_edge.tensor._decompose import check_weight
from sekron_edge.tensor._network import unfold


@dataclass(frozen=True)
class ChannelOrder:
    """An order of a weight's output and input channels.

    Attributes:
        outputs, inputs: The source of each channel of the ordered weight, ``weight[outputs][:, inputs]``.
        relative_error: Of the structure's approximation of the ordered weight (Frobenius).
        before: The same error in the given order.
    """

    outputs: Tensor
    inputs: Tensor
    relative_error: float
    before: float


def order_channels(weight: Tensor, structure: Structure, *, swaps: int = 2000, seed: int = 0) -> ChannelOrder:
    """Search for an order of channels in which a split into two Kronecker factors loses less.

    It swaps two channels at random, and keeps the swap where the error falls. The result is never worse than the given
    order, and seldom the best. It is worth its time only where the neighbouring layers can absorb the order.

    Args:
        weight: Of shape ``(F, C, *kernel)``; not modified.
        structure: Of two factors that share all labels.
        swaps: Number of swaps to try.
        seed: Of the swaps.

    Raises:
        StructureError: If the structure does not have two factors, or has another shape than the weight.
        UnsupportedLayerError: If the weight is empty or not finite.
    """
    if len(structure.factors) != 2 or structure.coupling != "full":
        raise StructureError(f"channels can be ordered for two factors that share all labels, got {structure}")
    if structure.shape != tuple(weight.shape):
        raise StructureError(f"the structure is for {structure.shape}, the tensor has {tuple(weight.shape)}")
    check_weight(weight)
    shapes = [factor.shape for factor in structure.factors]
    (rank,) = structure.sizes
    ordered = weight.detach().double()
    orders = [torch.arange(size) for size in weight.shape[:2]]
    split = [mode for mode in (0, 1) if 1 < shapes[0][mode] < weight.shape[mode]]
    before = error = _error(ordered, shapes, rank)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(swaps if split else 0):
        mode = split[int(torch.randint(len(split), (1,), generator=generator))]
        one, other = torch.randperm(weight.shape[mode], generator=generator)[:2].tolist()
        moved = torch.arange(weight.shape[mode])
        moved[[one, other]] = moved[[other, one]]
        swapped = ordered.index_select(mode, moved.to(weight.device))
        reached = _error(swapped, shapes, rank)
        if reached < error:
            ordered, error, orders[mode] = swapped, reached, orders[mode][moved]
    return ChannelOrder(orders[0], orders[1], error, before)


def _error(weight: Tensor, shapes: list[tuple[int, ...]], rank: int) -> float:
    matrix = unfold(weight, shapes)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    energies = torch.linalg.eigvalsh(gram).clamp_min(0)
    total = float(energies.sum())
    return (float(energies[: max(0, len(energies) - rank)].sum()) / total) ** 0.5 if total > 0 else 0.0
