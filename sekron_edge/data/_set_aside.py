"""Calibration samples: some of the training data, or, where there are none, some of the held-out ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sekron_edge.errors import DataError


def set_aside(total: int, wanted: int, path: Path) -> int:
    """Return how many of ``total`` held-out samples become training and calibration data: at most half.

    Raises:
        DataError: If there are fewer than two samples.
    """
    if total < 2:
        raise DataError(f"{path} must hold at least 2 samples, one for calibration and one held out; it holds {total}")
    return min(wanted, total // 2)


def drawn(total: int, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Return ``count`` indices below ``total`` at random, and the others; both in order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:count].tolist()), sorted(order[count:].tolist())


def balanced(targets: Tensor, count: int, seed: int) -> Tensor:
    """Choose ``count`` indices, one of each class in turn until a class is used up."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    shuffled = targets[order]
    turn = torch.empty_like(order)
    for label in range(int(targets.max()) + 1):
        members = (shuffled == label).nonzero().flatten()
        turn[members] = torch.arange(len(members))
    return order[torch.argsort(turn, stable=True)[:count]]
