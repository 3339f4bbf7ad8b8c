"""Errors of a layer's candidates: of the weight, in closed form, and of the layer's output, on calibration data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor import check_weight, decompose_tensor, unfold


class WeightErrors:
    """Relative Frobenius errors of structures in closed form: one spectrum a split, one core for all Tucker-2.

    Args:
        weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``.

    Raises:
        UnsupportedLayerError: If the weight is not finite.
    """

    def __init__(self, weight: Tensor) -> None:
        check_weight(weight)
        self.weight = weight.double()
        self.norm = float(torch.linalg.vector_norm(self.weight))
        self.cache: dict[tuple[Shape, ...], Tensor] = {}

    def __call__(self, structure: Structure) -> float:
        """Return the relative error over all groups, of two factors or of Tucker-2."""
        if self.norm == 0:
            return 0.0
        shapes = tuple(factor.shape for factor in structure.factors)
        if shapes not in self.cache:
            self.cache[shapes] = self._two(shapes) if len(shapes) == 2 else self._tucker2()
        discarded = float(self.cache[shapes][tuple(structure.ranks.values())].clamp_min(0).sqrt())
        return discarded / self.norm

    def _two(self, shapes: tuple[Shape, ...]) -> Tensor:
        """Return the energy that each rank discards, from rank 0."""
        matrices = torch.stack([unfold(group, shapes) for group in self.weight])
        return _discarded(matrices).sum(0)

    def _tucker2(self) -> Tensor:
        """Return the energy that each pair of ranks of the TT-SVD discards (De Lathauwer 2000, truncated).

        A pair's second step sees only the first step's components, so each out rank has a spectrum of its own.
        """
        out, inp = self.weight.shape[1:3]
        discarded = torch.zeros(out + 1, inp + 1, dtype=torch.float64)
        for group in self.weight:
            rows = group.reshape(out, -1)
            vectors = torch.linalg.eigh(rows @ rows.T)[1].flip(1)
            components = (vectors.T @ rows).reshape(out, inp, -1)
            first = components.square().sum((1, 2)).flip(0).cumsum(0).flip(0)
            parts = torch.stack([component @ component.T for component in components]).cumsum(0)
            second = torch.linalg.eigvalsh(parts).clamp_min(0).cumsum(1).flip(1)
            discarded[1:out, :inp] += first[1:, None] + second[:-1]
            discarded[1:out, inp] += first[1:]
            discarded[out, :inp] += second[-1]
        return discarded


def _discarded(matrices: Tensor) -> Tensor:
    """Return the sums of squared singular values from each on: ``(batch, m, n)`` to ``(batch, min(m, n) + 1)``."""
    rows, columns = matrices.shape[-2:]
    gram = matrices @ matrices.mT if rows <= columns else matrices.mT @ matrices
    energies = torch.linalg.eigvalsh(gram).clamp_min(0).cumsum(-1).flip(-1)
    return torch.nn.functional.pad(energies, (0, 1))


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
