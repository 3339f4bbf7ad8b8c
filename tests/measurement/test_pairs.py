"""Pairs are timed in as many processes as it takes; their draws are simulated, for no real ones are known to err."""

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import Limit
from sekron_edge.measurement import Device, Measurement, MeasurementRequest, Outcome, PairTimes, _pairs, measure_pair
from sekron_edge.measurement._conditions import DEFAULT_CONDITIONS
from tests.measurements import measured

HALF = Limit(value=0.5, relative=True)
DENSE_MS = 4.0


class Simulated(Device):
    """Draws how much of the dense model's time a process takes, and says whether it was steady."""

    name = "simulated"

    def __init__(self, ratios: Iterable[float], steady: Iterable[bool] = repeat(True)) -> None:
        self._ratios, self._steady = iter(ratios), iter(steady)
        self.processes = 0

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        raise NotImplementedError

    def measure(self, artifact: Artifact, *args: Any, **options: Any) -> Measurement:
        return measured(DENSE_MS, peak_memory_bytes=1000)

    def measure_together(self, artifacts: Sequence[Artifact], *args: Any, **options: Any) -> list[Measurement]:
        self.processes += 1
        steady = next(self._steady)
        return [measured(DENSE_MS, stable=steady), measured(DENSE_MS * next(self._ratios), stable=steady)]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"model")
    return Artifact.describe(path, format="litert", precision="fp32", inputs=[], outputs=[], versions={})


def times(*ratios: float) -> PairTimes:
    return PairTimes(dense_ms=(DENSE_MS,) * len(ratios), artifact_ms=tuple(DENSE_MS * ratio for ratio in ratios))


def test_three_processes_are_enough_where_there_is_no_doubt(artifact: Artifact) -> None:
    device = Simulated([0.3, 0.31, 0.29])
    pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
    assert device.processes == 3
    assert pair.times.decide(HALF)
    assert pair.times.said(HALF) == "0.300x, 0.290 to 0.310 in 3 processes"
    before, after = pair.shown(HALF)
    assert (before.median_ms, after.median_ms) == (DENSE_MS, DENSE_MS * 0.3)
    assert (before.peak_memory_bytes, after.peak_memory_bytes) == (1000, 1000)


def test_the_draws_of_four_processes_decide_nothing_and_more_are_run(artifact: Artifact) -> None:
    drawn = [0.51, 0.51, 0.46, 0.50, 0.45, 0.46, 0.44]
    device = Simulated(drawn)
    pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
    assert device.processes == 7
    assert pair.shown(HALF)[1].median_ms == pytest.approx(DENSE_MS * 0.46)
    assert not times(*drawn[:4]).decide(HALF)
    assert times(*drawn[:4]).said(HALF) == "0.510x, 0.460 to 0.510 in 4 processes, which do not decide on 0.5x"


def test_a_limit_in_milliseconds_is_about_milliseconds(artifact: Artifact) -> None:
    limit = Limit(value=2.0)
    drawn = PairTimes(dense_ms=(4.0, 8.0, 4.0), artifact_ms=(1.5, 1.52, 1.48))
    assert drawn.decide(limit)
    assert not drawn.decide(HALF)
    assert drawn.middle(limit) == 0
    assert drawn.said(limit) == "1.5 ms, 1.48 to 1.52 in 3 processes"
    assert times(0.5, 0.5, 0.5).said(limit).endswith("which do not decide on 2 ms")


def test_without_a_limit_three_processes_are_run(artifact: Artifact) -> None:
    device = Simulated([0.5, 0.9, 0.4])
    pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS)
    assert device.processes == 3
    assert str(pair.times) == "0.500x, 0.400 to 0.900 in 3 processes"


def test_what_was_not_steady_is_timed_again_and_counts_only_if_there_is_too_little_else(artifact: Artifact) -> None:
    steady = [True, False, True, False, True]
    device = Simulated([0.3, 0.9, 0.3, 0.9, 0.3], steady)
    pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
    assert (device.processes, pair.times.ratios) == (5, (0.3, 0.3, 0.3))

    device = Simulated([0.3, 0.31] + [0.4] * 7, [True, True] + [False] * 7)
    pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
    assert (device.processes, len(pair.times.ratios)) == (9, 9)


def test_what_is_known_is_not_measured_again_unless_it_was_not_steady_or_decides_nothing(artifact: Artifact) -> None:
    first = measure_pair(Simulated([0.46, 0.45, 0.47]), artifact, artifact, DEFAULT_CONDITIONS)
    nothing = Simulated([])
    assert measure_pair(nothing, artifact, artifact, DEFAULT_CONDITIONS, known=first) == first
    more = Simulated(repeat(0.46))
    wanted = Limit(value=0.45, relative=True)
    pair = measure_pair(more, artifact, artifact, DEFAULT_CONDITIONS, limit=wanted, known=first)
    assert more.processes > 0
    assert len(pair.times.ratios) == 3 + more.processes

    noisy = measure_pair(Simulated(repeat(0.6), repeat(False)), artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
    still = Simulated(repeat(0.5), repeat(False))
    assert measure_pair(still, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF, known=noisy) == noisy
    assert still.processes == 9
    again = Simulated(repeat(0.4))
    pair = measure_pair(again, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF, known=noisy)
    assert (again.processes, pair.times.ratios) == (3, (0.4,) * 3)


def test_no_emulated_time_is_waited_for_to_become_steady(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Simulated(repeat(0.3), repeat(False))
    monkeypatch.setattr(Simulated, "measure_together", lambda self, *_: [measured(1, stable=False, emulated=True)] * 2)
    assert len(measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF).together) == 3


def test_the_table_is_students() -> None:
    for count, quantile in _pairs._STUDENT.items():
        assert quantile == pytest.approx(stdtrit(count - 1, 0.975), abs=1e-3)


DRAWS: dict[str, Callable[[np.random.Generator], float]] = {
    "calm": lambda random: float(random.normal(0, 0.01)),
    "noisy": lambda random: float(random.normal(0, 0.03)),
    "two layouts": lambda random: float(random.choice([0.0, -0.08], p=[0.7, 0.3]) + random.normal(0, 0.005)),
}


@pytest.mark.parametrize("scatter", DRAWS)
@pytest.mark.parametrize("beyond", [0.02, 0.06])
def test_decisions_are_seldom_wrong_and_never_where_the_distance_is_large(
    artifact: Artifact, scatter: str, beyond: float
) -> None:
    random = np.random.default_rng(1)
    wrong = undecided = processes = 0
    jobs = 300
    for _ in range(jobs):
        side = random.choice([-1, 1])
        middle = 0.5 * np.exp(side * beyond)
        device = Simulated(middle * np.exp(DRAWS[scatter](random)) for _ in range(9))
        pair = measure_pair(device, artifact, artifact, DEFAULT_CONDITIONS, limit=HALF)
        decided = pair.times.decide(HALF)
        over = pair.shown(HALF)[1].median_ms > DENSE_MS * HALF.value
        wrong += decided and over != (side > 0)
        undecided += not decided
        processes += device.processes
    assert wrong <= 0.05 * jobs if scatter != "two layouts" else wrong <= 0.15 * jobs
    if scatter == "calm" and beyond == 0.06:
        assert wrong == undecided == 0
        assert processes < 4 * jobs


@settings(deadline=None)
@given(st.lists(st.floats(0.2, 1.2), min_size=3, max_size=9), st.floats(0.1, 10))
def test_the_middle_is_within_its_interval_and_units_do_not_matter(ratios: list[float], unit: float) -> None:
    drawn = times(*ratios)
    low, high = drawn.interval(HALF)
    assert low < ratios[drawn.middle(HALF)] * (1 + 1e-9)
    assert high > ratios[drawn.middle(HALF)] * (1 - 1e-9)
    slower = PairTimes(
        dense_ms=tuple(unit * one for one in drawn.dense_ms), artifact_ms=tuple(unit * one for one in drawn.artifact_ms)
    )
    assert slower.interval(HALF) == pytest.approx((low, high))
    assert slower.interval(Limit(value=1.0)) == pytest.approx([unit * DENSE_MS * end for end in (low, high)])


def test_fewer_than_three_processes_say_nothing() -> None:
    assert not times(0.1).decide(HALF)
    assert times(0.1).said(HALF) == "0.100x, 0.100 to 0.100 in 1 process, which do not decide on 0.5x"
