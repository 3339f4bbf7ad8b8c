"""Alternating least squares, for every coupling and for both objectives.

Given all other factors, a factor is a linear least-squares problem. Without calibration data, all of the factor's
columns share one small system (its normal equations). With data the objective is ``tr(dW Sigma dW^T)``, which couples
the columns (`OutputProblem`). Neither ever raises the objective.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import torch
from opt_einsum import shared_intermediates
from torch import Tensor

from sekron_edge.structure import Structure
from sekron_edge.tensor._factorized import FactorizedTensor
from sekron_edge.tensor._network import SHARED_FROM, Network, cores_of, from_cores, unfold
from sekron_edge.tensor._output import CANCELLED, OutputProblem

# Keeps the normal equations solvable when components are alike; relative to their mean diagonal, by type.
_RIDGE = {torch.float64: 1e-12, torch.float32: 1e-7}
# Where three or more factors carry a label (CP, SeKron of three), a component may be this much larger than the tensor.
# Beyond that two components cancel each other, and fine-tuning diverges.
_LARGEST_COMPONENT = 4.0
_DAMPING = tuple(10.0**exponent for exponent in range(-7, 3))


def refine(
    factorized: FactorizedTensor,
    weight: Tensor,
    *,
    sigma: Tensor | None = None,
    weighted: Tensor | None = None,
    sweeps: int = 30,
    tolerance: float = 1e-5,
    arithmetic: torch.dtype = torch.float64,
) -> FactorizedTensor:
    """Lower the error of a factorized tensor, factor by factor.

    Args:
        factorized: The start; not modified.
        weight: The tensor that it approximates.
        sigma: ``E[x x^T]`` over the vectors that the weight is multiplied with: ``(n, n)`` with n the product of all
            modes but the first; arithmetic is in its type. None: the Frobenius error.
        weighted: ``W Sigma``, ``(F, n)``, if it is known already.
        sweeps: Most sweeps over all factors.
        tolerance: Stops when a sweep gains less than this share of the error.
        arithmetic: For the Frobenius error. float32 takes half the time; use it where singular values below 1e-4 of the
            largest do not matter.

    Returns:
        Factors of the same structure, dtype and device, whose error is no larger.
    """
    kind = arithmetic if sigma is None else sigma.dtype
    target = weight.detach().to(kind)
    structure = factorized.structure
    problem: _Frobenius | OutputProblem = (
        _Frobenius(structure, target) if sigma is None else OutputProblem(structure, target, sigma, weighted)
    )
    cores = [core.to(kind) for core in cores_of(factorized)]
    before = problem.error(cores)
    for _ in range(sweeps):
        # The product of the tensor and one core serves the systems of all others; with data none occurs twice.
        with shared_intermediates() if sigma is None and target.numel() >= SHARED_FROM else nullcontext():
            for k in range(len(cores)):
                cores[k] = problem.solved(cores, k)
        after = problem.reached(cores)
        cores = _evened(cores)
        if before - after <= tolerance * before:
            break
        before = after
    return from_cores(structure, cores, factorized.values[0].dtype)


def _evened(cores: list[Tensor]) -> list[Tensor]:
    """Give all cores the same norm: the tensor stays the same, and even scales train well."""
    norms = torch.stack([torch.linalg.vector_norm(core) for core in cores])
    if not bool((norms > 0).all()):
        return cores
    mean = norms.log().mean().exp()
    return [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]


class _Frobenius:
    """``||W - What||``, on the unfolded tensor."""

    def __init__(self, structure: Structure, weight: Tensor) -> None:
        self._network = Network(structure)
        self._tensor = unfold(weight, [factor.shape for factor in structure.factors])
        self._norm = float(torch.linalg.vector_norm(self._tensor))
        carriers = Counter(label for factor in structure.factors for label in factor.labels)
        self._bound = _LARGEST_COMPONENT * self._norm if max(carriers.values(), default=0) > 2 else float("inf")
        self._last: tuple[Tensor, Tensor]

    def error(self, cores: list[Tensor]) -> float:
        """Return the error of the cores."""
        return float(torch.linalg.vector_norm(self._tensor - self._network.full(cores)))

    def reached(self, cores: list[Tensor]) -> float:
        """Return the error after the last core was solved for, from its system: no tensor is rebuilt."""
        gram, right = self._last
        core = cores[-1].reshape(right.shape)
        energy = float((core * (gram @ core)).sum() - 2 * (core * right).sum())
        squared = self._norm**2 + energy
        return squared**0.5 if squared > CANCELLED[core.dtype] * self._norm**2 else self.error(cores)

    def solved(self, cores: list[Tensor], k: int) -> Tensor:
        """Return the best core ``k``, given the others; if its components exceed a bound, a damped one that keeps it.

        A step of ``(G + mu) A = B + mu A_before`` never raises the error, whatever mu is. A larger mu, a shorter step.
        """
        gram = self._network.gram(cores, k)
        moved = self._network.project(self._tensor, cores, k)
        before = cores[k].reshape(-1, moved.shape[-1])
        right = moved.reshape(before.shape)
        self._last = gram, right
        scale = float(gram.diagonal().mean())
        if scale == 0:
            return cores[k]
        # Norms of the tensors that the rows of core k are multiplied with; the products are the components.
        others = gram.diagonal().clamp_min(0).sqrt()
        for damping in (_RIDGE[gram.dtype], *_DAMPING):
            mu = damping * scale
            damped = gram.clone()
            damped.diagonal().add_(mu)
            solution: Tensor = torch.linalg.solve(damped, right + mu * before)
            if float((torch.linalg.vector_norm(solution, dim=1) * others).max()) <= self._bound:
                return solution.reshape(cores[k].shape)
        return cores[k]
