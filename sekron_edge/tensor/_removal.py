"""Channels that a linear map can do without: in the order of what it costs to lose them, after it is solved again.

A map ``W`` reads blocks of values, one block a channel, with second moments ``G = E[x x^T]``. Without the channels of a
set, the best map of the others errs by what Schur complements say. The next channel to leave out is the one with the
least ``tr(W_j ([G^-1]_jj)^-1 W_j^T)``, where ``W`` and ``G^-1`` are those of the channels that are left (optimal brain
surgeon, Hassibi and Stork 1993, by channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Of the mean of the moments' diagonal. Moments of few samples see few directions: in the others, a solved map stays
# near the one that it comes from.
_RIDGE = 3e-3


@dataclass(frozen=True)
class Reader:
    """A linear map that reads channels.

    Attributes:
        weight: Of shape ``(outputs, channels * block)``; a channel's values stand side by side.
        moment: ``E[x x^T]`` of what it reads, ``(channels * block, same)``, symmetric.
    """

    weight: Tensor
    moment: Tensor


@dataclass(frozen=True)
class Removal:
    """The order in which channels are left out, and what that costs.

    Attributes:
        order: Channels, the first one to leave out first; one is left in the end.
        errors: Relative errors of the readers' outputs after each of them, ``||dy||^2 / ||y||^2`` in the mean over
            readers, each solved again for the channels that are left. They never fall.
    """

    order: tuple[int, ...]
    errors: tuple[float, ...]

    def kept(self, width: int) -> tuple[int, ...]:
        """Return the channels that are left at a width, in their own order."""
        gone = set(self.order[: len(self.order) + 1 - width])
        return tuple(channel for channel in range(len(self.order) + 1) if channel not in gone)


def removal(readers: Sequence[Reader], channels: int) -> Removal:
    """Return the greedy order in which channels are left out of all their readers at once.

    Args:
        readers: At least one.
        channels: Number of channels, which all of them read.

    Raises:
        ValueError: If a reader's shapes do not fit the number of channels.
    """
    maps = [_Map(reader, channels) for reader in readers]
    left = torch.ones(channels, dtype=torch.bool)
    order, errors, error = [], [], 0.0
    for _ in range(channels - 1):
        costs = torch.stack([one.costs() for one in maps]).mean(0)
        costs[~left] = torch.inf
        channel = int(costs.argmin())
        error += max(0.0, float(costs[channel]))
        left[channel] = False
        for one in maps:
            one.leave_out(channel)
        order.append(channel)
        errors.append(error)
    return Removal(tuple(order), tuple(errors))


def solved_again(reader: Reader, kept: Sequence[int], channels: int) -> Tensor:
    """Return the weight ``(outputs, len(kept) * block)`` of some channels that comes nearest to the map of all.

    Args:
        reader: The map of all channels.
        kept: Those that are left, in order.
        channels: Number of all.
    """
    block = reader.weight.shape[1] // channels
    columns = (torch.tensor(kept)[:, None] * block + torch.arange(block)).flatten()
    moment = _regular(reader.moment.double())
    wanted = reader.weight.double() @ moment[:, columns]
    solved: Tensor = torch.linalg.solve(moment[columns][:, columns], wanted.mT).mT
    return solved.to(reader.weight)


def _regular(moment: Tensor) -> Tensor:
    """Return moments that can be inverted, whatever channels are dead or alike."""
    scale = moment.diagonal().mean()
    ridge = _RIDGE * (scale if scale > 0 else torch.ones_like(scale))
    return moment + ridge * torch.eye(len(moment), dtype=moment.dtype)


class _Map:
    """A reader whose channels are left out one after another."""

    def __init__(self, reader: Reader, channels: int) -> None:
        values = channels and reader.weight.shape[1]
        if values % channels or reader.moment.shape != (values, values):
            raise ValueError(
                f"a reader of {channels} channels has a weight of (outputs, channels * block) and square moments, got "
                f"{tuple(reader.weight.shape)} and {tuple(reader.moment.shape)}"
            )
        moment = _regular(reader.moment.double())
        self._block = values // channels
        self._weight = reader.weight.double().clone()
        self._inverse = torch.linalg.inv(moment)
        self._energy = ((reader.weight.double() @ moment) * reader.weight.double()).sum().clamp_min(1e-300)

    def costs(self) -> Tensor:
        """Return what it costs to leave out each of the channels that are left, relative to the output's energy."""
        block, channels = self._block, len(self._inverse) // self._block
        own = self._inverse.reshape(channels, block, channels, block).diagonal(dim1=0, dim2=2).movedim(-1, 0)
        weights = self._weight.reshape(-1, channels, block).movedim(1, 0)  # (channels, outputs, block)
        gone = own.diagonal(dim1=1, dim2=2).amin(1) <= 0  # of a channel that was left out already
        own = torch.where(gone[:, None, None], torch.eye(block, dtype=own.dtype), own)
        lost: Tensor = (torch.linalg.solve(own, weights.mT) * weights.mT).sum((1, 2))
        return lost / self._energy

    def leave_out(self, channel: int) -> None:
        """Solve the map again without a channel."""
        at = slice(channel * self._block, (channel + 1) * self._block)
        step = torch.linalg.solve(self._inverse[at, at], self._inverse[at])
        self._weight -= self._weight[:, at] @ step
        self._inverse -= self._inverse[:, at] @ step
        self._weight[:, at] = 0
        self._inverse[at] = 0
        self._inverse[:, at] = 0
