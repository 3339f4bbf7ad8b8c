"""The latency model: what it fits, what it says of itself, and its calibration on this machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekron_edge.devices import LatencyModel, cached_calibration
from sekron_edge.devices._calibration import calibration_primitives
from sekron_edge.devices._latency import features, fit, kind
from sekron_edge.errors import DeviceError
from sekron_edge.primitives import Conv, Linear, Permute

CONV = Conv((1, 16, 14, 14), 32, (3, 3), (1, 1), (1, 1), 1, (14, 14))


@given(st.integers(0, 2**31))
def test_a_device_that_obeys_the_model_is_predicted_exactly(seed):
    random = np.random.default_rng(seed)
    primitives = calibration_primitives()
    truth = {name: random.uniform(1e-9, 1e-6, 6) for name in {kind(p) for p in primitives}}
    times = {p: float(np.dot(truth[kind(p)], features(p))) for p in primitives}
    held_out = dict(list(times.items())[::4])
    model = fit({p: t for p, t in times.items() if p not in held_out}, held_out, source="a test")
    assert max(model.held_out_error.values()) < 1e-6
    assert all(c >= 0 for values in model.coefficients.values() for c in values)


def test_times_add_up_scale_and_survive_json():
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


def test_every_kind_of_operation_is_told_apart():
    depthwise = Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 8, (8, 8))
    grouped = Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 2, (8, 8))
    pointwise = Conv((1, 8, 8, 8), 8, (1, 1), (1, 1), (1, 1), 1, (8, 8))
    found = [kind(p) for p in (CONV, depthwise, grouped, pointwise, Linear(1, 8, 8))]
    assert found == ["conv", "depthwise", "grouped", "pointwise", "linear"]


def test_a_time_of_zero_is_refused():
    with pytest.raises(DeviceError, match="positive"):
        fit({CONV: 0.0}, {}, source="a test")


@pytest.mark.slow
def test_this_machine_is_calibrated_once(tmp_path):
    model = cached_calibration("litert", cache=tmp_path)
    assert "measured on" in model.source
    assert set(model.held_out_error) == set(model.coefficients)
    assert cached_calibration("litert", cache=tmp_path) == model
    with pytest.raises(DeviceError, match="executorch"):
        cached_calibration("executorch", cache=tmp_path)
