"""How sure a calibration is: rounds that agree, other work that was seen, earlier calibrations that contradict it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sekron_edge.latency import LatencyModel, _calibration, cached_calibration
from sekron_edge.latency._design import calibration_primitives
from sekron_edge.latency._plausibility import contradictions
from sekron_edge.latency._rounds import Rounds, timed_in_rounds
from sekron_edge.measurement import Load, Measurement
from sekron_edge.measurement._store import MeasurementStore
from sekron_edge.primitives import Primitive
from tests.measurements import measured

PRIMITIVES = calibration_primitives(200)
CALM, BUSY = Load(waited=0.01, stolen=0.0, others=0.02), Load(waited=0.4, stolen=0.0, others=0.1)
NEIGHBOUR = Load(waited=0.0, stolen=0.0, others=0.5)


def round_of(slowness: float, load: Load | None = CALM) -> list[Measurement]:
    return [measured(slowness * time, load=load) for time in (1.0, 2.0, 4.0)]


def scripted(*rounds: list[Measurement]) -> Callable[[], list[Measurement]]:
    script: Iterator[list[Measurement]] = iter(rounds)
    return lambda: next(script)


def test_calm_rounds_that_agree_are_enough() -> None:
    rounds = timed_in_rounds(scripted(*map(round_of, (1.0, 1.3, 1.02, 1.5))), fewest=4, every_s=0)
    assert len(rounds.timings) == 4
    assert rounds.is_sure
    assert rounds.doubts == ()
    assert str(rounds) == "of 4 rounds the two fastest were 2.0% apart"


def test_the_fastest_round_of_each_primitive_counts() -> None:
    first, second = [measured(1.5), measured(1.0)], [measured(1.0), measured(1.1)]
    assert [one.median_ms for one in Rounds((tuple(first), tuple(second))).fastest] == [1.0, 1.0]


def test_more_rounds_follow_until_two_agree() -> None:
    rounds = timed_in_rounds(scripted(*map(round_of, (1.0, 1.3, 1.4, 1.3, 1.2, 1.01))), fewest=4, every_s=0)
    assert (len(rounds.timings), rounds.is_sure) == (6, True)


@pytest.mark.parametrize("load", [BUSY, NEIGHBOUR, Load(stolen=0.3)])
def test_what_was_disturbed_is_timed_again_and_then_doubted(load: Load) -> None:
    calm_at_last = [round_of(1.0, load)] * 5 + [round_of(1.0)] * 2
    rounds = timed_in_rounds(scripted(*calm_at_last), fewest=4, every_s=0)
    assert (len(rounds.timings), rounds.disturbed, rounds.is_sure) == (7, 5, True)
    never = timed_in_rounds(scripted(*[round_of(1.0, load)] * 8), fewest=4, every_s=0)
    assert len(never.timings) == 8
    (doubt,) = never.doubts
    assert doubt.startswith("the machine was busy in 8 of 8 rounds")


def test_one_fast_round_alone_is_doubted() -> None:
    rounds = timed_in_rounds(scripted(*map(round_of, (1.0, *[1.4] * 7))), fewest=4, every_s=0)
    assert len(rounds.timings) == 8
    assert rounds.doubts == ("only one round was fast, the next took 40% longer: it may have been slow, too",)


def test_where_the_system_counts_nothing_only_the_spread_is_judged() -> None:
    rounds = timed_in_rounds(scripted(*[round_of(1.0, None)] * 4), fewest=4, every_s=0)
    assert rounds.is_sure


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    return MeasurementStore(tmp_path / "measurements.sqlite")


def times(slowness: float) -> dict[Primitive, float]:
    return {primitive: slowness * (1 + primitive.macs * 1e-6) for primitive in PRIMITIVES}


def keep(store: MeasurementStore, precision: str, slowness: float) -> None:
    store.add(precision, 1, PRIMITIVES, [measured(time) for time in times(slowness).values()])


def against(store: MeasurementStore, precision: str, slowness: float, threads: int = 1) -> tuple[str, ...]:
    return contradictions(store, measured(1.0), times(slowness), precision=precision, threads=threads)


def test_times_unlike_those_of_an_earlier_calibration_are_doubted(store: MeasurementStore) -> None:
    assert against(store, "fp32", 1.0) == ()
    keep(store, "fp32", 1.0)
    assert against(store, "fp32", 1.1) == ()
    (slower,) = against(store, "fp32", 1.5)
    assert slower.startswith("operations took 1.50 times what they took at the calibration of 2026-11-30 00:00")
    assert "busy now" in slower
    (faster,) = against(store, "fp32", 0.5)
    assert "busy then" in faster
    assert against(store, "fp32", 1.5, threads=2) == ()


def test_int8_that_is_slower_than_fp32_nearly_everywhere_is_doubted(store: MeasurementStore) -> None:
    keep(store, "fp32", 1.0)
    assert against(store, "int8", 0.5) == ()
    (doubt,) = against(store, "int8", 1.2)
    assert doubt.startswith("int8 is slower than fp32 in 100% of the convolutions and linear layers")
    assert doubt.endswith("busy now")


def test_fp32_on_a_calm_machine_shows_that_int8_was_calibrated_on_a_busy_one(store: MeasurementStore) -> None:
    keep(store, "int8", 2.0)
    (doubt,) = against(store, "fp32", 1.0)
    assert doubt.endswith("busy at the calibration in int8 of 2026-11-30 00:00")


def test_a_calibration_that_is_kept_with_doubts_is_made_again_if_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = LatencyModel.estimated(gmacs_per_second=1, values_per_microsecond=1, call_us=1)
    made = iter([model.model_copy(update={"doubts": ("it was busy",)}), model])
    monkeypatch.setattr(_calibration, "calibrate", lambda *args, **options: next(made))
    assert cached_calibration("litert", cache=tmp_path).doubts
    assert cached_calibration("litert", cache=tmp_path).doubts
    assert not cached_calibration("litert", cache=tmp_path, again_if_doubtful=True).doubts
    assert not cached_calibration("litert", cache=tmp_path, again_if_doubtful=True).doubts
