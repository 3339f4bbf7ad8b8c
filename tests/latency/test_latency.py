"""The latency model: what it fits, what it says of itself, and its calibration on this machine."""

import os
import signal
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from sekron_edge.artifacts import PrimitiveExporter, get_exporter
from sekron_edge.errors import DeviceError
from sekron_edge.latency import LatencyModel, _calibration, cached_calibration
from sekron_edge.latency._design import calibration_primitives
from sekron_edge.latency._features import Tile, features, kind
from sekron_edge.latency._model import fit
from sekron_edge.measurement._store import MeasurementStore
from sekron_edge.primitives import Conv, Linear, Permute
from tests.narrowing import present

CONV = Conv((1, 16, 14, 14), 32, (3, 3), (1, 1), (1, 1), 1, (14, 14))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_device_that_obeys_the_model_is_predicted(precision: str) -> None:
    random = np.random.default_rng(0)
    primitives = calibration_primitives(1000)
    tile = Tile(rows=7, columns=16, depth=4)
    tiles = {"depthwise": Tile(columns=16), "large depthwise": Tile(columns=4)}
    tiles |= dict.fromkeys(("linear", "pointwise", "conv", "grouped"), tile)
    seen = {p: np.array(features(p, tiles.get(kind(p), Tile()), precision)) for p in primitives}
    truth = {kind(p): random.uniform(1e-9, 1e-6, len(row)) for p, row in seen.items()}
    times = {p: float(truth[kind(p)] @ row) for p, row in seen.items()}
    held_out = dict(list(times.items())[::4])
    fitted = {p: t for p, t in times.items() if p not in held_out}
    model = fit(fitted, held_out, source="a test", precision=precision)
    # Of other kinds fewer are drawn than there are features.
    often = ("conv", "pointwise", "grouped", "linear", "depthwise", "permute")
    assert max(present(model.kinds[name].p90_error) for name in often) < 1e-3
    assert all(c >= 0 for own in model.kinds.values() for c in own.milliseconds)


def test_times_add_up_scale_and_survive_json() -> None:
    model = LatencyModel.estimated(gmacs_per_second=10, values_per_microsecond=1000, call_us=2)
    permute = Permute((1, 4, 8, 196), (0, 2, 1, 3))
    both = model.latency_ms([CONV, permute])
    assert both == pytest.approx(model.latency_ms([CONV]) + model.latency_ms([permute]))
    assert model.latency_ms([]) == 0
    twice = model.scaled(2.0, "a measured model took twice as long")
    assert twice.latency_ms([CONV]) == pytest.approx(2 * model.latency_ms([CONV]))
    assert "took twice as long" in twice.source
    assert model.source.startswith("estimated")
    assert LatencyModel.model_validate_json(twice.model_dump_json()) == twice


def test_every_kind_of_operation_is_told_apart() -> None:
    depthwise = Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 8, (8, 8))
    large = Conv((1, 8, 8, 8), 8, (7, 7), (1, 1), (1, 1), 8, (8, 8))
    grouped = Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 2, (8, 8))
    pointwise = Conv((1, 8, 8, 8), 8, (1, 1), (1, 1), (1, 1), 1, (8, 8))
    found = [kind(p) for p in (CONV, depthwise, large, grouped, pointwise, Linear(1, 8, 8))]
    assert found == ["conv", "depthwise", "large depthwise", "grouped", "pointwise", "linear"]


def test_channels_that_fill_no_tile_cost_as_if_they_did() -> None:
    tile = Tile(rows=4, columns=16, depth=8)
    full, short = (
        features(Conv((1, 8, 4, 4), out, (3, 3), (1, 1), (1, 1), 1, (4, 4)), tile, "int8") for out in (16, 9)
    )
    assert full[1:7] == short[1:7]
    assert full[8] > short[8]


def test_a_time_of_zero_is_refused() -> None:
    with pytest.raises(DeviceError, match="positive"):
        fit({CONV: 0.0}, {}, source="a test")


def test_what_lowers_operations_may_die(tmp_path: Path) -> None:
    def die(part: object, path: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with pytest.raises(DeviceError, match=r"1 operations .* enough memory"):
        _calibration._in_processes(die, [[CONV]], [tmp_path])


@pytest.mark.slow
def test_this_machine_is_calibrated_once(tmp_path: Path) -> None:
    model = cached_calibration("litert", precision="int8", cache=tmp_path)
    assert "measured on" in model.source
    assert all(own.median_error is not None for own in model.kinds.values())
    assert cached_calibration("litert", precision="int8", cache=tmp_path) == model
    store = MeasurementStore(tmp_path / "measurements.sqlite")
    (kept,) = store.calibrations()
    assert (kept.runtime, kept.precision, kept.threads) == ("litert", "int8", 1)
    medians = store.medians(kept.id)
    assert len(medians) == kept.timings
    exporter = get_exporter("litert")
    assert isinstance(exporter, PrimitiveExporter)
    assert set(medians) == set(calibration_primitives(exporter.primitive_count))
    with pytest.raises(DeviceError, match="coreml"):
        cached_calibration("coreml", cache=tmp_path)
