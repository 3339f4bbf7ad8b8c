"""What is chosen for a device, and where its latencies are from."""

from typing import Any

import pytest

from sekron_edge.budget import Budget
from sekron_edge.devices import load_profile
from sekron_edge.errors import ConfigError
from sekron_edge.latency import LatencyModel, reference_primitives
from sekron_edge.pipeline import Target
from sekron_edge.pipeline import _latency as module
from sekron_edge.pipeline._latency import latency_model_of, require_known_latency
from tests.narrowing import present

HERE = LatencyModel.estimated(gmacs_per_second=40, values_per_microsecond=1000, call_us=1)


@pytest.fixture(autouse=True)
def _calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "cached_calibration", lambda runtime, **_: HERE)


def test_the_profile_fills_in_what_was_not_asked_for() -> None:
    target = Target.choose(load_profile("raspberry-pi-5"))
    assert (target.runtime, target.formats, target.threads) == ("litert", ("litert", "executorch"), 4)
    assert not target.place.is_here
    target = Target.choose(load_profile("host"), runtime="executorch", formats=["coreml"], threads=2)
    assert (target.runtime, target.formats, target.threads) == ("executorch", ("executorch", "coreml"), 2)
    assert target.place.is_here


def test_a_format_that_nobody_writes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host .* 'onnx'.* coreml, ethos-u, executorch, litert, tflm"):
        Target.choose(load_profile("host"), runtime="onnx")
    with pytest.raises(ConfigError, match="executorch exports fp32"):
        Target.choose(load_profile("host"), precisions=["fp16"])
    with pytest.raises(ConfigError, match="first precision"):
        Target.choose(load_profile("host"), runtime="executorch", formats=["coreml"], precisions=["fp16", "fp32"])


def test_sixteen_bit_activations_are_delivered_beside_what_is_planned() -> None:
    with pytest.raises(ConfigError, match=r"first precision, int16x8.*put int8 or fp32 first"):
        Target.choose(load_profile("host"), formats=["litert"], precisions=["int16x8"])
    target = Target.choose(load_profile("host"), precisions=["int8", "int16x8"])
    assert target.precision == "int8"


def test_a_profile_names_the_accelerator_as_a_variant_of_its_format() -> None:
    target = Target.choose(load_profile("corstone-320-u85"), precisions=["int8"])
    assert (target.runtime, target.formats) == ("ethos-u:u85-256", ("ethos-u:u85-256", "tflm"))


def test_the_reference_network_is_mobilenet_v1() -> None:
    assert sum(primitive.macs for primitive in reference_primitives()) == 568_740_352


def test_another_devices_latencies_are_this_machines_scaled_by_a_published_one_and_say_so() -> None:
    pi = Target.choose(load_profile("raspberry-pi-4"))
    model = latency_model_of(pi)
    assert model.latency_ms(reference_primitives()) == pytest.approx(124.3)
    assert "estimated" in model.source
    assert "raspberry-pi-4" in model.source
    phone = Target.choose(load_profile("pixel-8"), runtime="litert")
    assert latency_model_of(phone).latency_ms(reference_primitives()) == HERE.latency_ms(reference_primitives())
    assert "none is known" in latency_model_of(phone).source


def test_another_devices_latencies_come_of_what_resembles_it_and_this_machines_of_all_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []

    def calibrated(*_: object, device: str | None = None, **__: object) -> LatencyModel:
        asked.append(device)
        return HERE

    monkeypatch.setattr(module, "cached_calibration", calibrated)
    monkeypatch.setattr(module, "comparable_device", lambda: "vector units")
    latency_model_of(Target.choose(load_profile("raspberry-pi-4"), precisions=["int8"]))
    assert asked == ["vector units"] * 2
    latency_model_of(Target.choose(load_profile("host")))
    assert asked[2:] == [None]


def test_milliseconds_need_a_known_latency() -> None:
    phone = Target.choose(load_profile("pixel-8"), runtime="litert")
    require_known_latency(phone, Budget(latency_ms="0.5x"))
    with pytest.raises(ConfigError, match=r"8 ms .* pixel-8, .* relative"):
        require_known_latency(phone, Budget(latency_ms=8))
    require_known_latency(Target.choose(load_profile("raspberry-pi-4")), Budget(latency_ms=8))


def test_a_devices_memory_is_a_limit_where_none_is_given() -> None:
    pi = Target.choose(load_profile("raspberry-pi-zero-2w"))
    usable = present(pi.profile.facts.usable_ram).value
    assert usable
    assert present(pi.with_device_limits(Budget()).peak_memory_bytes).value == usable
    assert present(pi.with_device_limits(Budget(peak_memory_bytes=5)).peak_memory_bytes).value == 5


def test_a_device_that_is_reached_is_calibrated_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def calibrated(runtime: str, **how: object) -> LatencyModel:
        asked.update(how, runtime=runtime)
        return HERE

    monkeypatch.setattr(module, "cached_calibration", calibrated)
    pi = Target.choose(load_profile("raspberry-pi-4"), measured_on="ssh:board")
    assert latency_model_of(pi) is HERE
    assert (asked["device"].name, asked["threads"], asked["runtime"]) == ("ssh:board", 4, "litert")
    assert (pi.place.is_here, pi.place.is_reached, str(pi.place)) == (False, True, "ssh:board")
    phone = Target.choose(load_profile("pixel-8"), runtime="litert", measured_on="adb:pixel")
    require_known_latency(phone, Budget(latency_ms=8.0))
    assert phone.place.open().name == "adb:pixel"
    here = Target.choose(load_profile("host"))
    assert (here.place.is_here, str(here.place), here.place.open().name) == (True, "this machine", "local")


def test_where_to_measure_must_be_the_profiles_device() -> None:
    with pytest.raises(ConfigError, match="host is this machine"):
        Target.choose(load_profile("host"), measured_on="ssh:board")
    with pytest.raises(ConfigError, match="raspberry-pi-5 is not this machine"):
        Target.choose(load_profile("raspberry-pi-5"), measured_on="local")
    with pytest.raises(ConfigError, match="stm32h743 is a microcontroller"):
        Target.choose(load_profile("stm32h743"), precisions=["int8"], measured_on="ssh:board")
    with pytest.raises(ConfigError, match="no device 'moon'"):
        Target.choose(load_profile("raspberry-pi-5"), measured_on="moon")
