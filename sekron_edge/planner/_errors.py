"""Errors of a layer's candidates: of the weight, in closed form, and of the layer's output, on calibration data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from sekron_edge.planner._spectra import energies, split_energies
from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor import (
    FactorizedTensor,
    OutputSplit,
    check_weight,
    is_split,
    leading_components,
    orthogonal_split,
    outputs_factor,
    refine,
    unfold,
    unfolding_vectors,
    unrefined,
)

_SWEEPS = 20
# Most multiplications of all sweeps of a candidate: those of the largest layers get fewer sweeps, but at least a few.
_WORK = 5e9
_FEWEST_SWEEPS = 4
# A sweep that gains less than this share of the error is the last. CP's errors come out 0.2 % larger, 0.9 % at most.
_GAIN = 1e-3
# The energy that a tuple of ranks leaves out.
_Discarded = Callable[[tuple[int, ...]], float]
# Sweeps before candidates are judged by a layer's output. Compared to ResNet-20's errors after ten sweeps, those after
# two differ by 2 %, after one by 4 %, after none by 14 %.
_SWEEPS_FOR_OUTPUTS = 2
# From this many values of a group's weight on, spectra and decompositions are in float32. Errors move by 1e-5.
_MANY_VALUES = 1e5
# From this many inputs of a layer on, errors are computed in a subspace: narrower by the first of these factors that
# leaves out no more than this share of their energy.
_REDUCED_FROM = 1024
_NARROWER = (16, 8)
_MOST_LEFT = 0.02
# Outputs times squared inputs of a layer. From the first on, arithmetic is in float32: that takes half the time, and
# changes errors by less than candidates differ. The second is the most for all sweeps of a candidate.
_SINGLE_FROM = 1e7
_WORK_FOR_OUTPUTS = 2e8


class WeightErrors:
    """Relative Frobenius errors of structures.

    They are in closed form for two factors, and for a chain or SeKron of three: a few spectra give the errors of all
    ranks. Other structures are decomposed, with few sweeps. Large systems are solved in float32.

    Args:
        weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``.

    Attributes:
        weight: In the type that decompositions compute in.
        decomposed: For structures without a closed form, a decomposition of each group.

    Raises:
        UnsupportedLayerError: If the weight is not finite.
    """

    def __init__(self, weight: Tensor) -> None:
        check_weight(weight)
        self.weight = weight.to(torch.float32 if weight[0].numel() >= _MANY_VALUES else torch.float64)
        self.norm = float(torch.linalg.vector_norm(self.weight, dtype=torch.float64))
        self.cache: dict[tuple[str, tuple[Shape, ...]], _Discarded] = {}
        self.decomposed: dict[Structure, list[FactorizedTensor]] = {}
        self._vectors: dict[tuple[Shape, ...], list[list[Tensor]]] = {}

    def __call__(self, structures: Sequence[Structure]) -> list[float]:
        """Return the relative error of each structure over all groups; errors of splits are cheaper together."""
        if self.norm == 0:
            return [0.0 for _ in structures]
        keys = dict.fromkeys(_key(structure) for structure in structures)
        splits = [shapes for coupling, shapes in keys if coupling == "full" and len(shapes) == 2]
        split_squares = split_energies(self.weight, [split for split in splits if ("full", split) not in self.cache])
        self.cache |= {("full", split): _looked_up(_from_each_on(held).sum(0)) for split, held in split_squares.items()}
        return [self._error(structure) for structure in structures]

    def _error(self, structure: Structure) -> float:
        key = _key(structure)
        if key not in self.cache:
            coupling, shapes = key
            spectra = {("chain", 3): self._train, ("full", 3): self._sekron}.get((coupling, len(shapes)))
            if spectra is None:
                return self._after_decomposition(structure)
            self.cache[key] = spectra(shapes)
        discarded = self.cache[key](structure.sizes)
        return sqrt(max(0.0, discarded)) / self.norm

    def decompose(self, structure: Structure) -> list[FactorizedTensor]:
        """Return a decomposition of each group, with few sweeps; none is made twice."""
        if structure not in self.decomposed:
            starts = self._begun(structure)
            sweeps = _sweeps(structure)
            if sweeps and self.norm > 0:
                kind = self.weight.dtype
                pairs = zip(starts, self.weight, strict=True)
                starts = [
                    refine(start, group, sweeps=sweeps, tolerance=_GAIN, arithmetic=kind) for start, group in pairs
                ]
            self.decomposed[structure] = starts
        return self.decomposed[structure]

    def _begun(self, structure: Structure) -> list[FactorizedTensor]:
        """Return the start of the sweeps; all ranks of CP begin with the same vectors."""
        if is_split(structure):
            return [leading_components(group, structure) for group in self.weight]
        if structure.coupling != "diagonal":
            return [unrefined(group, structure) for group in self.weight]
        shapes = tuple(factor.shape for factor in structure.factors)
        if shapes not in self._vectors:
            self._vectors[shapes] = [unfolding_vectors(group, shapes) for group in self.weight]
        pairs = zip(self.weight, self._vectors[shapes], strict=True)
        return [unrefined(group, structure, vectors=vectors) for group, vectors in pairs]

    def _after_decomposition(self, structure: Structure) -> float:
        groups = self.decompose(structure)
        rebuilt = torch.stack([group.reconstruct() for group in groups])
        return float(torch.linalg.vector_norm(self.weight - rebuilt)) / self.norm

    def _train(self, shapes: tuple[Shape, ...]) -> _Discarded:
        """Return the energy that each pair of ranks of the TT-SVD discards; HOOI's step may still lower it a little.

        A pair's second step sees only the first step's components, so each first rank has a spectrum of its own.
        """
        split = [_components(unfold(group, shapes)) for group in self.weight]
        seconds: dict[int, Tensor] = {}

        def discarded(ranks: tuple[int, ...]) -> float:
            first, second = ranks
            if first not in seconds:
                kept = torch.stack([components[:first].flatten(0, 1) for _, components in split])
                seconds[first] = _from_each_on(energies(kept)).sum(0)
            return float(sum(left[first] for left, _ in split) + seconds[first][second])

        return discarded

    def _sekron(self, shapes: tuple[Shape, ...]) -> _Discarded:
        """Return the energy that each pair of ranks of SeKron's SVDs discards: that of the components left out."""
        squares = torch.stack([energies(_components(unfold(group, shapes))[1]) for group in self.weight])

        def discarded(ranks: tuple[int, ...]) -> float:
            outer, inner = ranks
            missing = -squares.shape[-1] % inner
            held = torch.nn.functional.pad(squares, (0, missing))
            pairs = held.reshape(len(held), -1, inner).sum(-1)
            return float(pairs.sort(dim=1, descending=True).values[:, outer:].sum())

        return discarded


def _components(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Split the first axis off ``(n1, n2, n3)``.

    Returns:
        The energy that each first rank discards, from rank 0, ``(m + 1,)``; the components, ``(m, n2, n3)``.
    """
    rows = tensor.flatten(1)
    rank = min(rows.shape)
    _, rest = orthogonal_split(rows, rank, "r1")
    return _from_each_on(rest.square().sum(1, dtype=torch.float64)), rest.reshape(rank, *tensor.shape[1:])


def _from_each_on(squares: Tensor) -> Tensor:
    """Return the sum from each position on: ``(batch, m)`` to ``(batch, m + 1)``."""
    return torch.nn.functional.pad(squares.flip(-1).cumsum(-1).flip(-1), (0, 1))


def _key(structure: Structure) -> tuple[str, tuple[Shape, ...]]:
    return structure.coupling, tuple(factor.shape for factor in structure.factors)


def _looked_up(table: Tensor) -> _Discarded:
    return lambda ranks: float(table[ranks])


def sweeps_for_outputs(weight: Tensor) -> int:
    """Return the sweeps that refine a layer's candidates for its output before they are judged; 0 if it is too large.

    Args:
        weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``.
    """
    return min(_SWEEPS_FOR_OUTPUTS, int(_WORK_FOR_OUTPUTS / _work(weight)))


def _work(weight: Tensor) -> int:
    """Return the multiplications of one group's change with its inputs' moments."""
    return int(weight.shape[1] * prod(weight.shape[2:]) ** 2)


def output_errors(errors: WeightErrors, moment: Tensor, structures: Sequence[Structure]) -> list[float]:
    """Return the relative errors of a layer's output, ``sqrt(tr(dW Sigma dW^T) / tr(W Sigma W^T))``.

    Splits between outputs and inputs have the least in closed form. The factors of others were refined a little for
    that error: otherwise it would say next to nothing about the reachable error.

    Args:
        errors: Of the layer's weight; its decompositions are used again.
        moment: ``E[x x^T]`` of each group's patches, ``(groups, n, n)`` with ``n = C / groups * prod(kernel)``.
        structures: Of one group's weight.
    """
    sweeps = sweeps_for_outputs(errors.weight)
    kind = torch.float32 if _work(errors.weight) >= _SINGLE_FROM else torch.float64
    metrics = [_Metric(group) for group in moment.to(kind)]
    weight = errors.weight.to(kind)
    weighted = [dense.flatten(1) @ metric.sigma for dense, metric in zip(weight, metrics, strict=True)]
    total = sum(
        float((times * dense.flatten(1)).sum(dtype=torch.float64))
        for times, dense in zip(weighted, weight, strict=True)
    )
    if total <= 0:
        return [0.0 for _ in structures]
    # Truncating the last rank of SVDs cuts the last two factors short: one decomposition serves all last ranks. The
    # components that SeKron of three factors keeps depend on both of its ranks.
    splits = {index for index, structure in enumerate(structures) if outputs_factor(structure) is not None}
    optima = [OutputSplit(*pair) for pair in zip(weight, weighted, strict=True)] if splits else []
    families: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, structure in enumerate(structures):
        if index in splits:
            continue
        shared = structure.coupling == "chain" or len(structure.factors) == 2
        cut = structure.sizes[:-1] if shared else structure.sizes
        families[(structure.factors, *cut)].append(index)
    relative = [0.0] * len(structures)
    for index in splits:
        left = sum(float(split.left_out[prod(structures[index].sizes)]) for split in optima)
        relative[index] = (left / total) ** 0.5
    for members in families.values():
        largest = max((structures[index] for index in members), key=lambda structure: structure.sizes)
        groups = errors.decompose(largest)
        for index in members:
            label, rank = structures[index].ranks[-1]
            left = 0.0
            for group, dense, metric, times in zip(groups, weight, metrics, weighted, strict=True):
                near = group.truncated(label, rank)
                if sweeps:
                    near = refine(near, dense, sigma=metric.sigma, weighted=times, sweeps=sweeps)
                left += metric.energy(dense - near.reconstruct().to(kind))
            relative[index] = (left / total) ** 0.5
    return relative


class _Metric:
    """``dW -> tr(dW Sigma dW^T)`` for many ``dW``.

    A large Sigma is replaced by its action on a subspace that holds nearly all of its trace, found by a randomised
    range finder (Halko et al. 2011), and by a multiple of the identity beside it; the part left out is known.

    Args:
        sigma: ``E[x x^T]`` of one group's patches, ``(n, n)``; arithmetic is in its type.
    """

    def __init__(self, sigma: Tensor) -> None:
        self.sigma = sigma
        self._near = _leading_part(sigma)

    def energy(self, change: Tensor) -> float:
        """Return ``tr(dW Sigma dW^T)`` of a change of the weight, of any shape with rows of n."""
        rows = change.flatten(1)
        if self._near is None:
            return max(0.0, float(((rows @ self.sigma) * rows).sum(dtype=torch.float64)))
        vectors, values, rest = self._near
        inside = (rows @ vectors).square().sum(0, dtype=torch.float64)
        outside = rows.square().sum(dtype=torch.float64) - inside.sum()
        return float((inside * values).sum()) + rest * max(0.0, float(outside))


def _leading_part(sigma: Tensor) -> tuple[Tensor, Tensor, float] | None:
    """Return leading eigenvectors, eigenvalues, and the mean of the others; None where the whole is as cheap."""
    size = len(sigma)
    trace = float(sigma.trace())
    if size < _REDUCED_FROM or trace == 0:
        return None
    for narrower in _NARROWER:
        width = size // narrower
        generator = torch.Generator().manual_seed(0)
        start = sigma @ torch.randn(size, width, generator=generator, dtype=sigma.dtype)
        basis = torch.linalg.qr(sigma @ torch.linalg.qr(start).Q).Q
        inner = basis.mT @ sigma @ basis
        left = trace - float(inner.diagonal().sum(dtype=torch.float64))
        if left <= _MOST_LEFT * trace:
            values, vectors = torch.linalg.eigh(inner)
            return basis @ vectors, values.clamp_min(0), max(0.0, left) / (size - width)
    return None


def _sweeps(structure: Structure) -> int:
    """Return a few sweeps where there is no direct algorithm, else none, because scoring sees many candidates."""
    if structure.coupling in ("full", "chain", "star"):
        return 0
    work = len(structure.factors) * prod(structure.shape) * max(structure.sizes)
    return max(_FEWEST_SWEEPS, min(_SWEEPS, int(_WORK / work)))
