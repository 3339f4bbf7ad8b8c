"""Errors of a layer's candidates: of the weight, in closed form, and of the layer's output, on calibration data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor import decompose_tensor, spectrum


class WeightErrors:
    """Relative Frobenius errors of structures in closed form: one spectrum a split, one core for all Tucker-2.

    Args:
        weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.double()
        self.norm = float(torch.linalg.vector_norm(self.weight))
        self.cache: dict[tuple[Shape, ...], Tensor] = {}

    def __call__(self, structure: Structure) -> float:
        """Return the relative error over all groups."""
        if self.norm == 0:
            return 0.0
        shapes = tuple(factor.shape for factor in structure.factors)
        if shapes not in self.cache:
            self.cache[shapes] = self._two(shapes) if len(shapes) == 2 else self._tucker2()
        kept = self.cache[shapes][tuple(rank - 1 for rank in structure.ranks.values())]
        return float((1 - kept / self.norm**2).clamp_min(0).sqrt())

    def _two(self, shapes: tuple[Shape, ...]) -> Tensor:
        """Return the energy kept by each rank."""
        values = torch.stack([spectrum(group, shapes).singular_values for group in self.weight])
        return values.square().sum(0).cumsum(0)

    def _tucker2(self) -> Tensor:
        """Return the energy kept by each pair of ranks of the TT-SVD (De Lathauwer 2000, truncated).

        A pair's second step sees only the first step's components, so each out rank has a spectrum of its own.
        """
        out, inp = self.weight.shape[1:3]
        kept = torch.zeros(out, inp, dtype=torch.float64)
        for group in self.weight:
            _, values, right = torch.linalg.svd(group.reshape(out, -1), full_matrices=False)
            rows = (values[:, None] * right).reshape(len(values), inp, -1).transpose(0, 1)
            for rank in range(1, out + 1):
                part = rows[:, : min(rank, len(values))].reshape(inp, -1)
                energies = torch.linalg.eigvalsh(part @ part.T).flip(0).clamp_min(0)
                kept[rank - 1] += energies.cumsum(0)
        return kept


def output_errors(weight: Tensor, moment: Tensor, structures: Sequence[Structure]) -> list[float]:
    """Return the relative errors of a layer's output, ``sqrt(tr(dW Sigma dW^T) / tr(W Sigma W^T))``.

    Args:
        weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``.
        moment: ``E[x x^T]`` of each group's patches, ``(groups, n, n)`` with ``n = C / groups * prod(kernel)``.
        structures: Of one group's weight; each as `decompose_tensor` approximates it.
    """
    weight = weight.double()
    total = _energy(weight, moment)
    if total == 0:
        return [0.0 for _ in structures]
    # Truncating the last rank of a chain cuts its last two factors short: one decomposition serves all last ranks.
    families: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, structure in enumerate(structures):
        families[(structure.factors, *list(structure.ranks.values())[:-1])].append(index)
    errors = [0.0] * len(structures)
    for members in families.values():
        largest = max((structures[index] for index in members), key=lambda structure: list(structure.ranks.values()))
        groups = [decompose_tensor(group, largest) for group in weight]
        for index in members:
            (label, rank), *_ = reversed(structures[index].ranks.items())
            rebuilt = torch.stack([group.truncated(label, rank).reconstruct() for group in groups])
            errors[index] = (_energy(weight - rebuilt, moment) / total) ** 0.5
    return errors


def _energy(weight: Tensor, moment: Tensor) -> float:
    rows = weight.flatten(2)
    return max(0.0, float(((rows @ moment) * rows).sum()))
