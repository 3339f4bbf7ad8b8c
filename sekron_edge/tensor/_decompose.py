"""Decomposition of a tensor by a structure of any coupling: an algorithm for each coupling, one refinement for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from sekron_edge.arguments import require
from sekron_edge.errors import StructureError, UnsupportedLayerError
from sekron_edge.structure import Coupling, Shape, Structure
from sekron_edge.tensor import _direct
from sekron_edge.tensor._factorized import FactorizedTensor
from sekron_edge.tensor._network import arranged, core_shape, from_cores, unfold
from sekron_edge.tensor._output_split import OutputSplit, outputs_factor
from sekron_edge.tensor._refine import refine

_DIRECT: dict[Coupling, Callable[[Tensor, Sequence[int]], list[Tensor]]] = {
    "full": _direct.sekron,
    "chain": _direct.tensor_train,
    "ring": _direct.tensor_ring,
    "star": _direct.tucker,
}
# Sweeps for the weight before those for the output, where no direct algorithm is good enough to start from.
_SWEEPS_TO_START: dict[Coupling, int] = {"full": 0, "chain": 0, "star": 0, "ring": 50, "diagonal": 100, "other": 100}
# Sweeps for the weight where no output follows. SeKron's SVDs are each optimal, but the whole leaves much to gain.
_SWEEPS = _SWEEPS_TO_START | {"full": 30}
# Most cubed sizes of least-squares systems over all sweeps: large ranks get fewer sweeps.
_WORK = 3e11
_SWEEPS_FOR_OUTPUTS = 10
# Most outputs times squared inputs over all sweeps: large tensors get fewer sweeps, the largest get one.
_WORK_FOR_OUTPUTS = 1e10
_OFF = 0.01


def check_weight(weight: Tensor) -> None:
    """Refuse a weight that cannot be decomposed.

    Raises:
        UnsupportedLayerError: If the tensor is empty, or not finite; says how many values are not.
    """
    if weight.numel() == 0:
        raise UnsupportedLayerError(f"a tensor must have values, got the shape {tuple(weight.shape)}")
    # A sum is cheaper than a mask; if it overflows, the mask decides.
    if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
        bad = int((~torch.isfinite(weight)).sum())
        raise UnsupportedLayerError(
            f"a tensor must be finite: {bad} of {weight.numel()} values are NaN or infinite; "
            "repair the checkpoint, or train again from one that is finite"
        )


def decompose_tensor(
    weight: Tensor, structure: Structure, sigma: Tensor | None = None, *, sweeps: int | None = None
) -> FactorizedTensor:
    """Decompose ``weight`` by ``structure``.

    ============  ==================================================================================
    two factors   truncated SVD: the optimum (Eckart and Young 1936); with ``sigma`` as well, if one factor has the
                  first mode whole and nothing else (`OutputSplit`)
    ``full``      SVDs of one right factor after another (SeKron), then alternating least squares
    ``chain``     TT-SVD: within sqrt(S - 1) of the optimum; with three factors also a step of HOOI
    ``star``      HOOI
    ``ring``      TR-SVD, then alternating least squares
    ``diagonal``  alternating least squares from leading singular vectors; components stay bounded
    others        alternating least squares from random factors of a fixed seed
    ============  ==================================================================================

    Args:
        weight: Of shape ``structure.shape``, any floating dtype and device; not modified.
        structure: Of any coupling.
        sigma: ``E[x x^T]`` over the vectors that the weight is multiplied with, ``(n, n)``, n the product of all modes
            but the first. With it, the factors are refined for the error of the layer's output.
        sweeps: Sweeps of refinement: for the output with ``sigma``, else for the weight. None: as many as pay for this
            coupling, fewer for large ranks; with ``sigma`` up to 10, fewer for large tensors. What is optimal in
            closed form takes none.

    Returns:
        Factors of the weight's dtype, on its device.

    Raises:
        StructureError: If the shapes differ.
        RankError: If a rank exceeds the tensor's.
        UnsupportedLayerError: If the weight is empty or not finite.
        ConfigError: If an argument is of the wrong type.
    """
    require(weight, Tensor, "weight", "a tensor")
    require(structure, Structure, "structure", "a sekron_edge.Structure")
    if structure.shape != tuple(weight.shape):
        raise StructureError(f"the structure is for {structure.shape}, the tensor has {tuple(weight.shape)}")
    check_weight(weight)
    if torch.count_nonzero(weight) == 0:
        # Iterations would keep the random values that they start from.
        zeros = unrefined(weight.detach().double(), structure).values
        return FactorizedTensor(structure, tuple(torch.zeros_like(value, dtype=weight.dtype) for value in zeros))
    outputs = outputs_factor(structure)
    if sigma is not None and outputs is not None:
        return _split_for_outputs(weight.detach().double(), structure, sigma.double(), outputs, weight.dtype)
    factors = unrefined(weight.detach().double(), structure)
    if sigma is None and sweeps is not None:
        for_weight = sweeps
    elif is_split(structure):
        for_weight = 0
    else:
        for_weight = _affordable(structure) if sigma is None else _SWEEPS_TO_START[structure.coupling]
    if for_weight:
        factors = refine(factors, weight, sweeps=for_weight)
    if sigma is not None:
        affordable = int(_WORK_FOR_OUTPUTS / (weight.shape[0] * prod(weight.shape[1:]) ** 2))
        for_output = max(1, min(_SWEEPS_FOR_OUTPUTS, affordable)) if sweeps is None else sweeps
        factors = refine(factors, weight, sigma=sigma, sweeps=for_output)
    return FactorizedTensor(structure, tuple(value.to(weight.dtype) for value in factors.values))


def _split_for_outputs(
    weight: Tensor, structure: Structure, sigma: Tensor, outputs: int, dtype: torch.dtype
) -> FactorizedTensor:
    cores = list(OutputSplit(weight, weight.flatten(1) @ sigma).factors(prod(structure.sizes)))
    if outputs == 1:
        cores.reverse()
    return from_cores(structure, _of_split(structure, cores), dtype)


def unrefined(weight: Tensor, structure: Structure, *, vectors: Sequence[Tensor] | None = None) -> FactorizedTensor:
    """Return the start of refinement: the result of the coupling's direct algorithm, or singular vectors, or noise.

    Args:
        weight: Of shape ``structure.shape``; arithmetic is in its type.
        structure: Of any coupling.
        vectors: The result of `unfolding_vectors` for these factors' shapes, if it is known. All ranks of a diagonal
            coupling begin with them; other couplings do not need them.

    Raises:
        RankError: If a rank exceeds the tensor's.
    """
    tensor = unfold(weight, [factor.shape for factor in structure.factors])
    return from_cores(structure, _started(tensor, structure, vectors), weight.dtype)


def leading_components(weight: Tensor, structure: Structure) -> FactorizedTensor:
    """Return nearly the best factors of a split (`is_split`), in much less time where these are few of many.

    Args:
        weight: Of shape ``structure.shape``; arithmetic is in its type.
        structure: Of two factors that share all labels.

    Raises:
        RankError: If the rank exceeds the tensor's.
    """
    tensor = unfold(weight, [factor.shape for factor in structure.factors])
    left, right = _direct.leading_svd(tensor, prod(structure.sizes), " x ".join(structure.labels))
    return from_cores(structure, _of_split(structure, (left.T, right)), weight.dtype)


def unfolding_vectors(weight: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """Return the left singular vectors of each unfolding of a tensor into factors' shapes: ``(n_k, known)`` each."""
    return _unfolding_vectors(unfold(weight, shapes))


def _unfolding_vectors(tensor: Tensor) -> list[Tensor]:
    matrices = [tensor.movedim(k, 0).reshape(size, -1) for k, size in enumerate(tensor.shape)]
    return [_direct.orthogonal_split(matrix, min(matrix.shape), "r1")[0] for matrix in matrices]


def _affordable(structure: Structure) -> int:
    """Return how many sweeps pay and can be afforded; each solves a system of its labels' size for every factor."""
    largest = max(prod(structure.rank(label) for label in factor.labels) for factor in structure.factors)
    return min(_SWEEPS[structure.coupling], int(_WORK / largest**3))


def is_split(structure: Structure) -> bool:
    """Whether there are two factors that share all labels; however many labels, that is a matrix of one rank."""
    return len(structure.factors) == 2 and all(len(f.labels) == len(structure.ranks) for f in structure.factors)


def _started(tensor: Tensor, structure: Structure, vectors: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Return cores to start from, or final ones, in the order of each factor's own labels."""
    ranks = structure.sizes
    if len(structure.factors) == 1:
        return [tensor]
    if is_split(structure):
        left, right = _direct.truncated_svd(tensor, prod(ranks), " x ".join(structure.labels))
        return _of_split(structure, (left.T, right))
    if structure.coupling in _DIRECT:
        cores = _DIRECT[structure.coupling](tensor, ranks)
        return [
            arranged(core, structure.canonical_labels(k), factor.labels)
            for k, (core, factor) in enumerate(zip(cores, structure.factors, strict=True))
        ]
    if structure.coupling != "diagonal":
        return _random(tensor, structure)
    return _vectors(tensor, structure, _unfolding_vectors(tensor) if vectors is None else vectors)


def _of_split(structure: Structure, cores: Sequence[Tensor]) -> list[Tensor]:
    """Return the two cores of a split, ``(rank, n_k)`` each, with the rank divided among the labels."""
    return [
        arranged(core.reshape(*structure.sizes, -1), structure.labels, factor.labels)
        for core, factor in zip(cores, structure.factors, strict=True)
    ]


def _vectors(tensor: Tensor, structure: Structure, vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return leading singular vectors of each unfolding, slightly disturbed; where there are too few, random vectors.

    Exactly on singular vectors the error of a symmetric tensor may be stationary, and no sweep would move.
    """
    (rank,) = structure.sizes
    cores = _random(tensor, structure)
    for core, known in zip(cores, vectors, strict=True):
        count = min(rank, known.shape[1])
        core[:count] = known[:, :count].T + _OFF * core[:count]
    return cores


def _random(tensor: Tensor, structure: Structure) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    cores = []
    for k in range(len(structure.factors)):
        core = torch.randn(core_shape(structure, k), generator=generator, dtype=tensor.dtype)
        cores.append((core / max(1, core.shape[-1]) ** 0.5).to(tensor.device))
    return cores
