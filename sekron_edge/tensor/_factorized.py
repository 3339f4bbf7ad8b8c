"""A tensor held as its factors."""

from __future__ import annotations

import string
from dataclasses import dataclass

import torch
from torch import Tensor

from sekron_edge.errors import RankError, StructureError
from sekron_edge.structure import Structure


@dataclass(frozen=True, eq=False)
class FactorizedTensor:
    """The values of a structure's factors.

    Attributes:
        structure: Which factors there are, and how they are coupled.
        values: One tensor a factor, of shape ``structure.value_shape(k)``.

    Raises:
        StructureError: If the values' shapes are not the structure's.
    """

    structure: Structure
    values: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        given = [tuple(value.shape) for value in self.values]
        expected = [self.structure.value_shape(k) for k in range(len(self.structure.factors))]
        if given != expected:
            raise StructureError(f"factors must have the shapes {expected}, got {given}")

    @property
    def num_params(self) -> int:
        """Number of stored values."""
        return self.structure.num_params

    def reconstruct(self) -> Tensor:
        """Return the tensor, of shape ``structure.shape``: one einsum and one reshape."""
        letters = iter(string.ascii_letters)
        label_letter = {label: next(letters) for label in self.structure.ranks}
        factors = self.structure.factors
        modes = len(factors[0].shape)
        mode_letters = [[next(letters) for _ in range(modes)] for _ in factors]
        terms = [
            "".join(label_letter[label] for label in factor.labels) + "".join(mode)
            for factor, mode in zip(factors, mode_letters, strict=True)
        ]
        # Mode by mode, the first factor's part varies slowest: that is the Kronecker product.
        result = "".join(mode_letters[k][n] for n in range(modes) for k in range(len(factors)))
        product: Tensor = torch.einsum(f"{','.join(terms)}->{result}", *self.values)
        return product.reshape(self.structure.shape)

    def truncated(self, label: str, rank: int) -> FactorizedTensor:
        """Keep the first ``rank`` components of a label.

        Raises:
            RankError: If the label has fewer.
        """
        if not 1 <= rank <= self.structure.ranks[label]:
            raise RankError(f"{label} must be between 1 and {self.structure.ranks[label]}, got {rank}")
        values = tuple(
            value.narrow(factor.labels.index(label), 0, rank) if label in factor.labels else value
            for factor, value in zip(self.structure.factors, self.values, strict=True)
        )
        return FactorizedTensor(self.structure.with_ranks(**{label: rank}), values)

    def relative_error(self, weight: Tensor) -> float:
        """Return ``||weight - reconstruct()|| / ||weight||`` in the Frobenius norm (0 for a zero tensor)."""
        norm = torch.linalg.vector_norm(weight.double())
        if norm == 0:
            return 0.0
        difference = weight.double() - self.reconstruct().double()
        return float(torch.linalg.vector_norm(difference) / norm)
