"""One factor after another for the error of a layer's output, ``tr((W - What) Sigma (W - What)^T)``.

Given all others, a factor is a linear least-squares problem, and rows of different outputs do not mix: the normal
equations couple only the factor's labels and inputs. Where that system is small it is solved; else conjugate gradients
descend from the present factor. Neither raises the objective.
"""

from __future__ import annotations

from math import prod, sqrt

import torch
from torch import Tensor

from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor._network import Network, contracted, contraction_costs, fold, unfold

_CG_STEPS = 8
# The normal equations of factor k: labels r and s, outputs f of the others, its own inputs a and b, theirs p and q.
_NORMAL = "rfp,paqb,sfq->rasb"
# Most values of any intermediate tensor: more would take too much memory.
_MOST_VALUES = 5e7
# An operation of solving takes this many times as long as one of multiplying.
_SOLVING = 4
# Makes the system solvable; relative to the mean diagonal, by type. A step of ``(M + mu) A = B + mu A_before`` never
# raises the objective, whatever mu is.
_DAMPING = {torch.float64: 1e-10, torch.float32: 1e-5}
# Below this share of the whole, the difference of two large numbers is not reliable.
CANCELLED = {torch.float64: 1e-9, torch.float32: 1e-3}


class OutputProblem:
    """``sqrt(tr((W - What) Sigma (W - What)^T))``: the error of the layer's output.

    Args:
        structure: Of the weight.
        weight: ``(F, C, *kernel)``, of sigma's type.
        sigma: ``E[x x^T]``, ``(n, n)``, n the product of all modes but the first.
        weighted: ``W Sigma``, ``(F, n)``, where it is known; many structures of one weight share it.
    """

    def __init__(self, structure: Structure, weight: Tensor, sigma: Tensor, weighted: Tensor | None = None) -> None:
        self._structure = structure
        self._network = Network(structure)
        self._shapes = [factor.shape for factor in structure.factors]
        self._sigma = sigma
        flat = weight.flatten(1)
        times = flat @ sigma if weighted is None else weighted
        self._weight = weight
        self._times = times.reshape(weight.shape)
        self._energy = float((times * flat).sum(dtype=torch.float64))
        # The squared error that is left after the last factor, if a system was solved for it.
        self._left: float | None = None

    def error(self, cores: list[Tensor]) -> float:
        """Return the error of the cores."""
        change = self._weight - fold(self._network.full(cores), self._shapes)
        energy = (_weighted(change, self._sigma) * change).sum(dtype=torch.float64)
        return sqrt(max(0.0, float(energy)))

    def reached(self, cores: list[Tensor]) -> float:
        """Return the error after the last core was solved for, from its system where there was one."""
        if self._left is not None and self._left > CANCELLED[self._sigma.dtype] * self._energy:
            return sqrt(self._left)
        return self.error(cores)

    def solved(self, cores: list[Tensor], k: int) -> Tensor:
        """Return a better core ``k``, given the others; the best one where its system is small."""
        return self._best(cores, k) if self._is_small(k) else self._descended(cores, k)

    def _is_small(self, k: int) -> bool:
        """Whether building and solving the system takes less than descending."""
        factor, outputs, size = self._structure.factors[k], self._structure.shape[0], len(self._sigma)
        labels = prod(self._structure.rank(label) for label in factor.labels)
        own = prod(factor.shape[1:])
        build, largest = contraction_costs(_NORMAL, *_normal_shapes(labels, own, outputs // factor.shape[0], size))
        solve = _SOLVING * (labels * own) ** 3 / 6
        return largest <= _MOST_VALUES and build + solve <= (_CG_STEPS + 1) * outputs * size**2

    def _best(self, cores: list[Tensor], k: int) -> Tensor:
        """Solve for core ``k``: every row of its outputs has the same system."""
        kept, *others = self._shapes[k], *(shape for j, shape in enumerate(self._shapes) if j != k)
        environment = self._network.environment(cores, k)
        labels, own, outputs = len(environment), prod(kept[1:]), kept[0]
        # The labels fold as one more mode, carried by the first of the others.
        modes = [(labels, *others[0]), *((1, *shape) for shape in others[1:])]
        seen = fold(environment.flatten(0, 1), modes).flatten(2)
        sigma = _apart(self._sigma, self._shapes, k)
        normal = contracted(_NORMAL, seen, sigma, seen).reshape(labels * own, labels * own)
        right = _by_output(self._network.project(unfold(self._times, self._shapes), cores, k), labels, outputs)
        before = _by_output(cores[k], labels, outputs)
        damping = _DAMPING[normal.dtype] * float(normal.diagonal().mean())
        identity = torch.eye(len(normal), dtype=normal.dtype, device=normal.device)
        factor, failed = torch.linalg.cholesky_ex(normal + damping * identity)
        if damping == 0 or int(failed):
            return self._descended(cores, k)
        solution = torch.cholesky_solve((right + damping * before).mT, factor).mT
        gained = solution * (2 * right - solution @ normal)
        self._left = self._energy - float(gained.sum(dtype=torch.float64))
        return solution.reshape(outputs, labels, own).transpose(0, 1).reshape(cores[k].shape)

    def _descended(self, cores: list[Tensor], k: int) -> Tensor:
        """Descend from core ``k`` by conjugate gradients.

        Where another core holds all outputs and nothing else, core ``k`` cannot leave the space of that core's rows:
        the problem then has only as many rows as that core.
        """
        self._left = None
        cores, shapes, weighted = self._within_reach(cores, k)

        def image(direction: Tensor) -> Tensor:
            full = fold(self._network.full([*cores[:k], direction, *cores[k + 1 :]]), shapes)
            return self._network.project(unfold(_weighted(full, self._sigma), shapes), cores, k)

        core = cores[k]
        residual = self._network.project(unfold(weighted, shapes), cores, k) - image(core)
        direction, energy = residual, float(residual.square().sum())
        for _ in range(_CG_STEPS):
            if energy == 0:
                break
            moved = image(direction)
            curvature = float((direction * moved).sum())
            if curvature <= 0:
                break
            step = energy / curvature
            core = core + step * direction
            residual = residual - step * moved
            before, energy = energy, float(residual.square().sum())
            direction = residual + energy / before * direction
        return core

    def _within_reach(self, cores: list[Tensor], k: int) -> tuple[list[Tensor], list[Shape], Tensor]:
        """Return cores, shapes and ``W Sigma`` in the space of the rows of the core that holds all outputs."""
        outputs = self._structure.shape[0]
        for j, (core, shape) in enumerate(zip(cores, self._shapes, strict=True)):
            rows = prod(core.shape[:-1])
            if j != k and prod(shape) == shape[0] == outputs and rows < outputs:
                basis, inside = torch.linalg.qr(core.reshape(rows, outputs).mT)
                narrow = [*cores[:j], inside.mT.reshape(*core.shape[:-1], rows), *cores[j + 1 :]]
                shapes = [*self._shapes[:j], (rows, *shape[1:]), *self._shapes[j + 1 :]]
                within = (basis.mT @ self._times.flatten(1)).reshape(rows, *self._times.shape[1:])
                return narrow, shapes, within
        return cores, self._shapes, self._times


def _weighted(weight: Tensor, sigma: Tensor) -> Tensor:
    return (weight.flatten(1) @ sigma).reshape(weight.shape)


def _by_output(core: Tensor, labels: int, outputs: int) -> Tensor:
    """Return a core ``(*labels, n_k)`` with one row per output, ``(outputs, labels * inputs)``."""
    return core.reshape(labels, outputs, -1).transpose(0, 1).reshape(outputs, -1)


def _apart(sigma: Tensor, shapes: list[Shape], k: int) -> Tensor:
    """Return Sigma with factor ``k``'s part of the inputs apart from the others' parts.

    Returns:
        ``(others, own, others, own)``.
    """
    count, modes = len(shapes), len(shapes[0]) - 1
    sizes = [shape[n] for n in range(1, modes + 1) for shape in shapes]
    own = [n * count + k for n in range(modes)]
    beside = [n * count + j for n in range(modes) for j in range(count) if j != k]
    second = len(sizes)
    split = sigma.reshape(*sizes, *sizes)
    order = [*beside, *own]
    inputs = prod(shapes[k][1:])
    return split.permute(*order, *(second + axis for axis in order)).reshape(2 * (len(sigma) // inputs, inputs))


def _normal_shapes(labels: int, own: int, rows: int, size: int) -> tuple[Shape, Shape, Shape]:
    seen = (labels, rows, size // own)
    return seen, (size // own, own, size // own, own), seen
