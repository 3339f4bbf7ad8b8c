"""The split of a weight between its outputs and all the rest that is best for the layer's output, in closed form.

``tr((W - A B) Sigma (W - A B)^T)`` is least where the columns of A are the leading eigenvectors of ``W Sigma W^T``, and
``B = A^T W``: Eckart and Young for ``W Sigma^(1/2)``, without that root. What is left is the sum of the other
eigenvalues. Alternating least squares would come to the same, in many sweeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sekron_edge.errors import RankError
from sekron_edge.structure import Structure


def outputs_factor(structure: Structure) -> int | None:
    """Return which of two factors that share all labels has the first mode whole and nothing else; None if none."""
    if len(structure.factors) != 2 or any(len(factor.labels) != len(structure.ranks) for factor in structure.factors):
        return None
    outputs = (structure.shape[0], *(1 for _ in structure.shape[1:]))
    return next((k for k, factor in enumerate(structure.factors) if factor.shape == outputs), None)


class OutputSplit:
    """All ranks of the split of one weight.

    Args:
        weight: ``(F, C, *kernel)``; arithmetic is in its type.
        weighted: ``W Sigma``, ``(F, n)``, n the product of all modes but the first.

    Attributes:
        left_out: The squared errors of ranks 0, 1, .., min(F, n), in float64.
    """

    def __init__(self, weight: Tensor, weighted: Tensor) -> None:
        self._rows = weight.flatten(1)
        outputs, inputs = self._rows.shape
        if outputs <= inputs:
            values, vectors = torch.linalg.eigh(_symmetric(weighted @ self._rows.mT))
        else:  # the outputs lie in a space of as few directions as there are inputs
            basis = torch.linalg.qr(self._rows).Q
            inside = _symmetric((basis.mT @ weighted) @ (basis.mT @ self._rows).mT)
            values, vectors = torch.linalg.eigh(inside)
            vectors = basis @ vectors
        self._directions = vectors.flip(-1)
        energies = values.flip(-1).double().clamp_min(0)
        self.left_out = torch.nn.functional.pad(energies.flip(-1).cumsum(-1).flip(-1), (0, 1))

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return ``(rank, F)`` and ``(rank, n)``, the component of most energy first, both of the same norms.

        Raises:
            RankError: If the weight has no such rank.
        """
        limit = self._directions.shape[1]
        if rank > limit:
            raise RankError(f"r1 must be at most {limit}, got {rank}")
        left = self._directions[:, :rank].mT
        right = left @ self._rows
        norms = torch.linalg.vector_norm(right, dim=1, keepdim=True).clamp_min(torch.finfo(right.dtype).tiny)
        return left * norms.sqrt(), right / norms.sqrt()


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2
