"""Decomposition of a tensor by a structure, and the errors of all its ranks from one spectrum.

Any two-factor structure is an SVD of a rearrangement (Van Loan and Pitsianis 1993), the optimum by
Eckart and Young. A chain of more factors is the tensor-train SVD (Oseledets 2011) of the same
rearrangement with one axis a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from sekron_edge.errors import RankError, StructureError, UnsupportedLayerError
from sekron_edge.structure import Shape, Structure, full
from sekron_edge.tensor._factorized import FactorizedTensor


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


def _check_weight(weight: Tensor) -> None:
    if weight.numel() == 0:
        raise UnsupportedLayerError(f"a tensor must have values, got the shape {tuple(weight.shape)}")
    if not torch.isfinite(weight).all():
        bad = int((~torch.isfinite(weight)).sum())
        raise UnsupportedLayerError(
            f"a tensor must be finite: {bad} of {weight.numel()} values are NaN or infinite; "
            "repair the checkpoint, or train again from one that is finite"
        )


def _unfold(weight: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """Rearrange W so that axis k runs over the indices of factor k."""
    modes, count = weight.ndim, len(shapes)
    split = weight.reshape([shape[n] for n in range(modes) for shape in shapes])
    order = [n * count + k for k in range(count) for n in range(modes)]
    return split.permute(order).reshape([prod(shape) for shape in shapes])


def _shapes(structure: Structure) -> list[Shape]:
    return [factor.shape for factor in structure.factors]


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
    _check_weight(weight)
    matrix = _unfold(weight.detach().double(), shapes)
    return Spectrum(torch.linalg.svdvals(matrix).cpu(), float(torch.linalg.vector_norm(matrix)))


def decompose_tensor(weight: Tensor, structure: Structure) -> FactorizedTensor:
    """Decompose ``weight`` by ``structure``.

    Two factors: truncated SVD, the optimum. A chain of more: TT-SVD, each step optimal, the whole
    within sqrt(S - 1) of the optimum. Singular values are split evenly between neighbours.

    Args:
        weight: Of shape ``structure.shape``, any floating dtype and device; not modified.
        structure: Two factors that share one label, or a chain.

    Returns:
        Factors of the weight's dtype, on its device.

    Raises:
        StructureError: If the shapes differ, or the coupling is not one of these two.
        RankError: If a rank exceeds what the tensor has.
        UnsupportedLayerError: If the weight is empty or not finite.
    """
    if structure.shape != tuple(weight.shape):
        raise StructureError(f"the structure is for {structure.shape}, the tensor has {tuple(weight.shape)}")
    _check_weight(weight)
    ranks = list(structure.ranks.values())
    if len(structure.factors) < 2 or not structure.is_chain:
        raise StructureError(f"only two factors or a chain can be decomposed yet, got {structure}")
    return _tt_svd(weight, structure, ranks)


def _tt_svd(weight: Tensor, structure: Structure, ranks: list[int]) -> FactorizedTensor:
    rest = _unfold(weight.detach().double(), _shapes(structure))
    axes = list(rest.shape)
    cores: list[Tensor] = []
    previous = 1
    for position, (axis, rank) in enumerate(zip(axes[:-1], ranks, strict=True)):
        matrix = rest.reshape(previous * axis, -1)
        if rank > min(matrix.shape):
            raise RankError(f"r{position + 1} must be at most {min(matrix.shape)}, got {rank}, in {structure}")
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        cores.append(left[:, :rank].reshape(previous, axis, rank))
        rest = values[:rank, None] * right[:rank]
        previous = rank
    cores.append(rest.reshape(previous, axes[-1], 1))
    balanced = _balance(cores)
    values_of = tuple(
        core.movedim(2, 1).reshape(structure.value_shape(k)).to(weight.dtype).contiguous()
        for k, core in enumerate(balanced)
    )
    return FactorizedTensor(structure, values_of)


def _balance(cores: list[Tensor]) -> list[Tensor]:
    """Give the two sides of every label the same norms, component by component: even scales train well."""
    for k in range(len(cores) - 1):
        ahead = torch.linalg.vector_norm(cores[k], dim=(0, 1))
        behind = torch.linalg.vector_norm(cores[k + 1], dim=(1, 2))
        usable = (ahead > 0) & (behind > 0)
        scale = torch.where(usable, (behind / ahead.clamp_min(1e-300)).sqrt(), torch.ones_like(ahead))
        cores[k] = cores[k] * scale
        cores[k + 1] = cores[k + 1] / scale[:, None, None]
    return cores
