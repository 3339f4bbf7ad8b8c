"""What a layer's factors should be where its inputs are already off: the error against the original's output.

With ``x`` the original's input and ``xh`` the input that the layer really sees, ``E ||W x - Wh xh||^2`` is a constant
and ``tr((Wh - W*) Sh (Wh - W*)^T)``, where ``Sh = E[xh xh^T]``, ``C = E[x xh^T]`` and ``W* = W C Sh^-1`` (Zhang et al.
2015, arXiv 1505.06798). So whatever approximates a weight under a moment does it here, with another weight and moment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST_RIDGE = 1e-6


@dataclass(frozen=True)
class SeenMoments:
    """Second moments of the original's inputs and of those that a layer really sees, ``(groups, n, n)`` each.

    Attributes:
        original: ``E[x x^T]``.
        seen: ``E[xh xh^T]``.
        cross: ``E[x xh^T]``.
    """

    original: Tensor
    seen: Tensor
    cross: Tensor

    def target(self, weight: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Return the weight to approximate, and the moment to do it under; where ``x = xh``, the weight itself.

        Inputs that hardly vary say nothing of their weights, and few samples little: a ridge keeps those near the
        original's, ``W* = (W C + mu W) (Sh + mu)^-1``.

        Args:
            weight: With its groups apart, ``(groups, F / groups, C / groups, *kernel)``, of the moments' type.
            ridge: ``mu``, as a share of the inputs' mean energy; at least 1e-6. Infinite: the weight itself.

        Returns:
            ``W*`` in the weight's shape; ``Sh``, with the ridge if it is finite.
        """
        rows = weight.flatten(2)
        mean = self.seen.diagonal(dim1=1, dim2=2).mean(1)
        if ridge == float("inf") or not bool((mean > 0).all()):
            return weight, self.seen
        mu = max(ridge, _LEAST_RIDGE) * mean[:, None, None] * torch.eye(rows.shape[2], dtype=rows.dtype)
        metric = self.seen + mu
        wanted = torch.linalg.solve(metric, (rows @ (self.cross + mu)).mT).mT
        return wanted.reshape(weight.shape), metric

    def error(self, weight: Tensor, near: Tensor) -> float:
        """Return ``E ||W x - Wh xh||^2 / E ||W x||^2`` of an approximate weight; 0 if the original's output is zero."""
        rows, others = weight.flatten(2), near.to(weight.dtype).flatten(2)
        energy = float((rows @ self.original * rows).sum())
        if energy <= 0:
            return 0.0
        off = energy - 2 * float((rows @ self.cross * others).sum()) + float((others @ self.seen * others).sum())
        return max(0.0, off) / energy
