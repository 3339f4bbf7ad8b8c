"""An artifact beside the dense one, in as many processes as it takes to say on which side of a limit it is.

Where a process finds its memory changes its times by some percent, however calm the machine: the same two files took
0.51, 0.51, 0.46 and 0.50 of each other in four processes. Runs of one process cannot tell. The unit that is repeated
is therefore the process, and what counts is the one in the middle: a user has one process, and half of them keep that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import stdev

from pydantic import BaseModel, ConfigDict

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import Limit
from sekron_edge.measurement._conditions import Conditions
from sekron_edge.measurement._device import Device
from sekron_edge.measurement._records import Measurement

Pair = tuple[Measurement, Measurement]

_FEWEST, _MOST = 3, 9
# Where nothing is to be decided, a noisy machine gets this many processes to be quiet in.
_MOST_UNDECIDED = 5
# Student's t for 95 %, by the number of processes. (scipy.special takes longer to import than all of this package.)
_STUDENT = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306}
# The standard error of a median over that of a mean, of many normal values.
_OF_A_MEDIAN = 1.2533
# Three processes may agree by chance; a process changes times by a percent at least.
_LEAST_SPREAD = 0.01
# Reading the memory takes no more runs.
_RUNS_ALONE, _WARMUP_ALONE = 4, 1


class PairTimes(BaseModel):
    """Median latencies of the dense artifact and of the other, timed in turn: one of each for every process, in order.

    Attributes:
        dense_ms: Milliseconds of the dense artifact.
        artifact_ms: Milliseconds of the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dense_ms: tuple[float, ...]
    artifact_ms: tuple[float, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> PairTimes:
        """Return the medians of processes that timed the dense artifact and the other."""
        return cls(
            dense_ms=tuple(dense.median_ms for dense, _ in pairs), artifact_ms=tuple(own.median_ms for _, own in pairs)
        )

    @property
    def ratios(self) -> tuple[float, ...]:
        """The artifact's time over the dense one's, of each process."""
        return tuple(own / dense for own, dense in zip(self.artifact_ms, self.dense_ms, strict=True))

    def figures(self, limit: Limit | None) -> tuple[float, ...]:
        """Return what a limit is about, of each process: ratios, or milliseconds if it is absolute."""
        return self.ratios if limit is None or limit.relative else self.artifact_ms

    def middle(self, limit: Limit | None) -> int:
        """Return the place of the process in the middle; of an even number the slower one of two."""
        figures = self.figures(limit)
        return sorted(range(len(figures)), key=figures.__getitem__)[len(figures) // 2]

    def interval(self, limit: Limit | None) -> tuple[float, float]:
        """Return where the middle of many more processes is, in 95 of 100 cases, if they scatter as these do.

        It is Student's for the logarithms, around their median and widened for it. Of fewer than three processes it is
        everything.
        """
        figures = self.figures(limit)
        if len(figures) < _FEWEST:
            return 0.0, float("inf")
        spread = max(stdev(map(log, figures)), _LEAST_SPREAD)
        half = _OF_A_MEDIAN * _STUDENT[min(len(figures), _MOST)] * spread / sqrt(len(figures))
        middle = figures[self.middle(limit)]
        return middle * exp(-half), middle * exp(half)

    def decide(self, limit: Limit) -> bool:
        """Say whether the interval leaves no doubt on which side of the limit the artifact is."""
        low, high = self.interval(limit)
        return not low <= limit.value <= high

    def said(self, limit: Limit | None = None) -> str:
        """Return the spread in words, and the doubt about a limit if there is any."""
        figures, unit = self.figures(limit), "x" if limit is None or limit.relative else " ms"
        middle, least, most = figures[self.middle(limit)], min(figures), max(figures)
        number = ".3f" if unit == "x" else ".4g"
        words = f"{middle:{number}}{unit}, {least:{number}} to {most:{number}} in {_processes(len(figures))}"
        if limit is None or self.decide(limit):
            return words
        return f"{words}, which do not decide on {limit}{'' if limit.relative else ' ms'}"

    def __str__(self) -> str:
        return self.said()


class MeasuredPair(BaseModel):
    """An artifact and the dense one, measured.

    Attributes:
        alone: The dense artifact and the other, each in a process of its own, which says whose the memory is.
        together: Both in turn, in one process after another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alone: Pair
    together: tuple[Pair, ...]

    @property
    def counted(self) -> tuple[Pair, ...]:
        """The processes that count: the steady ones if there are enough of them, else all."""
        steady = tuple(pair for pair in self.together if _is_steady(pair))
        return steady if len(steady) >= _FEWEST else self.together

    @property
    def times(self) -> PairTimes:
        """The medians in each process that counts."""
        return PairTimes.of(self.counted)

    def shown(self, limit: Limit | None) -> Pair:
        """Return the measurements of the process in the middle, with the memory that each takes alone."""
        middle, (dense, own) = self.counted[self.times.middle(limit)], self.alone
        return _with_memory(middle[0], dense), _with_memory(middle[1], own)


def measure_pair(
    device: Device,
    dense: Artifact,
    artifact: Artifact,
    conditions: Conditions,
    *,
    limit: Limit | None = None,
    known: MeasuredPair | None = None,
) -> MeasuredPair:
    """Time two artifacts in turn, in one process after another; then read the memory of each by itself.

    At least three processes count, and up to nine are run, five where there is no limit: until the artifact is surely
    on one side of the limit. What
    was not steady counts only if too little else is there. Who asks sees by `PairTimes.decide` whether it was enough.

    Args:
        device: Where.
        dense: The artifact of the dense model.
        artifact: The other; of the same format.
        conditions: Of each process.
        limit: Of the artifact's latency: in milliseconds, or relative to the dense one's.
        known: What was measured of them before under the same conditions. What was not steady is timed again; if that
            is no better, `known` is returned, so that a machine that is never calm decides the same again.

    Raises:
        DeviceError: As `Device.measure_together`.
    """
    together = [] if known is None else [pair for pair in known.together if _is_steady(pair)]
    most = _MOST_UNDECIDED if limit is None else _MOST
    for _ in range(most - len(together)):
        if _suffice(together, limit):
            break
        first, second = device.measure_together([dense, artifact], conditions)
        together.append((first, second))
    if known is not None and sum(map(_is_steady, together)) < _FEWEST:
        return known
    if known is None:
        short = Conditions(runs=_RUNS_ALONE, warmup=_WARMUP_ALONE, threads=conditions.threads)
        alone = device.measure(dense, short), device.measure(artifact, short)
    else:
        alone = known.alone
    return MeasuredPair(alone=alone, together=tuple(together))


def _suffice(together: Sequence[Pair], limit: Limit | None) -> bool:
    """Say whether enough processes were steady, and decide on the limit if there is one."""
    steady = [pair for pair in together if _is_steady(pair)]
    if len(steady) < _FEWEST:
        return False
    return limit is None or PairTimes.of(steady).decide(limit)


def _is_steady(pair: Pair) -> bool:
    """Say whether a process may count; an emulated one is as good as the next."""
    return all(one.stable or one.emulated for one in pair)


def _with_memory(timed: Measurement, alone: Measurement) -> Measurement:
    return timed.model_copy(update={"peak_memory_bytes": alone.peak_memory_bytes})


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
