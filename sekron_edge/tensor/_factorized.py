"""A tensor held as its factors."""

from __future__ import annotations

import string
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sekron_edge.errors import RankError, StructureError
from sekron_edge.structure import Structure, full


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
        label_letter = {label: next(letters) for label in self.structure.labels}
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

    def to_sekron(self) -> FactorizedTensor:
        """Return the same tensor with the coupling ``full``: factors repeat along the labels that they do not carry.

        This is SeKron's theorem (arXiv 2210.06299): CP, Tucker, tensor train and ring are SeKron with tied factors.
        Label k of the result stands for all labels that first occur in factor k.
        """
        factors, ranks = self.structure.factors, dict(self.structure.ranks)
        opened: list[list[str]] = []
        for factor in factors[:-1]:
            seen = [label for labels in opened for label in labels]
            opened.append([label for label in factor.labels if label not in seen])
        result = full([factor.shape for factor in factors], [prod(ranks[x] for x in labels) for labels in opened])
        values = []
        for k, (factor, value) in enumerate(zip(factors, self.values, strict=True)):
            carried = [label for labels in opened[: k + 1] for label in labels]
            order = [factor.labels.index(label) for label in carried if label in factor.labels]
            moved = value.permute(*order, *range(len(factor.labels), value.ndim))
            sizes = [ranks[label] if label in factor.labels else 1 for label in carried]
            spread = moved.reshape(*sizes, *factor.shape).expand(*(ranks[x] for x in carried), *factor.shape)
            values.append(spread.reshape(result.value_shape(k)))
        return FactorizedTensor(result, tuple(values))

    def simplified(self) -> FactorizedTensor:
        """Return the same tensor with adjacent pointwise factors merged, wherever the product has no more values."""
        k = self.structure.mergeable
        if k is None:
            return self
        result = self.structure.merged(k)
        letter = dict(zip(self.structure.labels, string.ascii_lowercase, strict=False))
        modes = len(self.structure.shape)
        left, right = string.ascii_uppercase[:modes], string.ascii_uppercase[modes : 2 * modes]
        terms = ["".join(letter[x] for x in self.structure.factors[j].labels) for j in (k, k + 1)]
        wanted = "".join(letter[x] for x in result.factors[k].labels)
        pairs = "".join(a + b for a, b in zip(left, right, strict=True))
        joined = torch.einsum(f"{terms[0]}{left},{terms[1]}{right}->{wanted}{pairs}", *self.values[k : k + 2])
        values = (*self.values[:k], joined.reshape(result.value_shape(k)), *self.values[k + 2 :])
        return FactorizedTensor(result, values).simplified()

    def truncated(self, label: str, rank: int) -> FactorizedTensor:
        """Keep the first ``rank`` components of a label.

        Raises:
            RankError: If the label has fewer.
            StructureError: If there is no such label.
        """
        largest = self.structure.rank(label)
        if not 1 <= rank <= largest:
            raise RankError(f"{label} must be between 1 and {largest}, got {rank}")
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
