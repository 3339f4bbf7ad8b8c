"""What else ran on a machine while something was measured there, as Linux counts it.

A spread within a measurement shows a neighbour that comes and goes. One that stays makes every run longer by the same,
and only the system knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from sekron_edge.measurement._records import Load

_CORES = "/proc/stat"
# Of the runner's own process, thread by thread.
_THREADS = "/proc/self/task/*/schedstat"
READ = (_CORES, _THREADS)
# The system counts so many a second in /proc/stat, whatever its own clock (USER_HZ).
_TICKS_PER_S = 100
# Of /proc/stat's first line: what the cores did not do, and what the hypervisor gave to others.
_IDLE, _WAITING_FOR_DISKS, _STOLEN, _COUNTED = 3, 4, 7, 8
# Shorter times than these say nothing, in nanoseconds and in ticks.
_LEAST_RUN_NS, _LEAST_TICKS = 10_000_000, 20
_MOST_DIGITS = 20


def load_between(before: Mapping[str, str], after: Mapping[str, str]) -> Load | None:
    """Return the load between two readings of `READ`'s files; None where there are none, or too little time passed."""
    ran_before, waited_before = _threads(before)
    ran_after, waited_after = _threads(after)
    ran, waited = ran_after - ran_before, waited_after - waited_before
    # The time of waiting for disks is known to go back a little.
    cores = [max(0, after - before) for before, after in zip(_cores(before), _cores(after), strict=False)]
    load = Load(
        waited=max(0, waited) / (ran + max(0, waited)) if ran >= _LEAST_RUN_NS else None,
        stolen=_stolen(cores),
        others=_others(cores, ran),
    )
    return None if load == Load() else load


def _threads(texts: Mapping[str, str]) -> tuple[int, int]:
    """Return how long the threads ran, and how long they waited for a core, in nanoseconds."""
    told = [_counters(text) for path, text in texts.items() if fnmatchcase(path, _THREADS)]
    whole = [one for one in told if len(one) >= 2]
    return sum(one[0] for one in whole), sum(one[1] for one in whole)


def _cores(texts: Mapping[str, str]) -> list[int]:
    """Return the ticks of all cores since the machine started, by what they did."""
    first, *_ = texts.get(_CORES, "").splitlines() or [""]
    name, _, ticks = first.partition(" ")
    return _counters(ticks)[:_COUNTED] if name == "cpu" else []


def _counters(text: str) -> list[int]:
    """Return the numbers that a text is; none if it is anything else."""
    words = text.split()
    return [int(one) for one in words] if all(one.isdecimal() and len(one) <= _MOST_DIGITS for one in words) else []


def _stolen(cores: list[int]) -> float | None:
    """Return the share of the time that the machine wanted to run, and another one ran instead."""
    if len(cores) < _COUNTED:
        return None
    wanted = sum(cores) - cores[_IDLE] - cores[_WAITING_FOR_DISKS]
    return cores[_STOLEN] / wanted if wanted >= _LEAST_TICKS else None


def _others(cores: list[int], ran_ns: int) -> float | None:
    """Return the share of all cores' time that other processes had."""
    if len(cores) < _COUNTED or sum(cores) < _LEAST_TICKS or ran_ns < _LEAST_RUN_NS:
        return None
    busy = sum(cores) - cores[_IDLE] - cores[_WAITING_FOR_DISKS] - cores[_STOLEN]
    return max(0.0, busy - ran_ns * 1e-9 * _TICKS_PER_S) / sum(cores)
