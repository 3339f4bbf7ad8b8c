"""The singular values of a split: the error of every rank at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sekron_edge.errors import StructureError
from sekron_edge.structure import Shape, full
from sekron_edge.tensor._decompose import check_weight
from sekron_edge.tensor._network import unfold


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a two-factor split: the error of every rank at once.

    Attributes:
        singular_values: Descending, float64, on the CPU.
        norm: Frobenius norm of the tensor.
    """

    singular_values: Tensor
    norm: float

    def relative_error(self, rank: int) -> float:
        """Return the relative Frobenius error of the best approximation of that rank."""
        if self.norm == 0:
            return 0.0
        discarded = self.singular_values[rank:]
        return float(torch.linalg.vector_norm(discarded)) / self.norm


def spectrum(weight: Tensor, shapes: Sequence[Shape]) -> Spectrum:
    """Return the spectrum of a split of ``weight`` into two factors.

    Args:
        weight: Any floating dtype and device; not modified.
        shapes: Mode shapes of the two factors; their product is ``weight``'s shape.

    Raises:
        StructureError: If there are not two factors, or they do not divide the weight.
        UnsupportedLayerError: If the weight is empty or not finite.
    """
    if len(shapes) != 2 or full(shapes, [1]).shape != tuple(weight.shape):
        raise StructureError(f"two factors must multiply to {tuple(weight.shape)}, got {list(shapes)}")
    check_weight(weight)
    matrix = unfold(weight.detach().double(), shapes)
    return Spectrum(torch.linalg.svdvals(matrix).cpu(), float(torch.linalg.vector_norm(matrix)))
