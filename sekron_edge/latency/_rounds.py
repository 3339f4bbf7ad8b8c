"""Rounds of timings: as many as it takes until two of them were calm and agree, and what is to be doubted if none are.

Other work on a machine lasts for seconds or minutes and only adds time. So everything is timed in rounds at intervals,
and of each primitive the fastest counts. If only one round was fast, nobody knows whether it was fast enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from sekron_edge.measurement._records import Load, Measurement

# Two rounds agree if one takes no more than this longer.
_AGREEING = 0.05
# A round was disturbed if the runner was without its core in more of its time, or if other processes had more of all
# cores': they share caches, and where two cores are one with two threads, also the units that compute.
_MOST_LOST, _MOST_OTHERS = 0.1, 0.25
_CALM = 2
_MOST_TIMES_MORE = 2


@dataclass(frozen=True)
class Rounds:
    """Timings of the same primitives, round by round."""

    timings: tuple[tuple[Measurement, ...], ...]

    @property
    def fastest(self) -> list[Measurement]:
        """The fastest measurement of each primitive."""
        return [min(seen, key=lambda one: one.median_ms) for seen in zip(*self.timings, strict=True)]

    @property
    def apart(self) -> float:
        """By how much the second fastest round was slower than the fastest, in the median of all primitives."""
        slowness = sorted(
            median(one.median_ms / best.median_ms for one, best in zip(seen, self.fastest, strict=True))
            for seen in self.timings
        )
        return slowness[1] / slowness[0] - 1 if len(slowness) > 1 else 0.0

    @property
    def disturbed(self) -> int:
        """The number of rounds while which other processes, or other virtual machines, ran on the machine."""
        return sum(_is_disturbed(seen[0].load) for seen in self.timings)

    @property
    def is_sure(self) -> bool:
        """Whether enough rounds were calm, and the fastest agree."""
        calm = len(self.timings) - self.disturbed >= min(_CALM, len(self.timings))
        return calm and self.apart <= _AGREEING

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these times may be too long, in words."""
        found = []
        if len(self.timings) - self.disturbed < min(_CALM, len(self.timings)):
            loads = [seen[0].load or Load() for seen in self.timings]
            lost, others = min(map(_lost, loads)), min(load.others or 0.0 for load in loads)
            found.append(
                f"the machine was busy in {self.disturbed} of {len(self.timings)} rounds (the timed process lacked its "
                f"core in {lost:.0%} of its time at least, others had {others:.0%} of all cores'): all times may be "
                "too long"
            )
        if self.apart > _AGREEING:
            found.append(f"only one round was fast, the next took {self.apart:.0%} longer: it may have been slow, too")
        return tuple(found)

    def __str__(self) -> str:
        return f"of {len(self.timings)} rounds the two fastest were {self.apart:.1%} apart"


def _lost(load: Load) -> float:
    """Return the share of its time in which the runner did not have its core, as far as the system counts it."""
    return max(load.waited or 0.0, load.stolen or 0.0)


def _is_disturbed(load: Load | None) -> bool:
    return load is not None and (_lost(load) > _MOST_LOST or (load.others or 0.0) > _MOST_OTHERS)


def timed_in_rounds(timed: Callable[[], Sequence[Measurement]], *, fewest: int, every_s: float) -> Rounds:
    """Time everything in rounds at intervals, and in up to twice as many until the fastest are sure.

    Args:
        timed: Times every primitive once.
        fewest: Number of rounds, if they are calm.
        every_s: Seconds from the start of one to the start of the next.
    """
    began = time.monotonic()
    rounds = Rounds((tuple(timed()),))
    most = _MOST_TIMES_MORE * fewest
    while len(rounds.timings) < fewest or (len(rounds.timings) < most and not rounds.is_sure):
        time.sleep(max(0.0, began + len(rounds.timings) * every_s - time.monotonic()))
        rounds = Rounds((*rounds.timings, tuple(timed())))
    return rounds
