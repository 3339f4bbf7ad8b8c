"""The runner: one file that travels; what it is asked, what it answers, and what is believed of that."""

import ast
import json
import os
import platform
import sys
import types
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import pytest
import torch
from torch import nn

from sekron_edge.artifacts import Array, Artifact, TensorSpec, export, get_exporter, predict
from sekron_edge.errors import DeviceError, VerificationError
from sekron_edge.measurement import Conditions, LocalDevice, Measurement
from sekron_edge.measurement._hostinfo import HostInfo
from sekron_edge.measurement._loading import loader_elsewhere, loader_here
from sekron_edge.measurement._protocol import Answer, MeasurementRequest, Timing, read_answer
from sekron_edge.measurement._summary import summary
from sekron_edge.measurement.on_device import runner
from tests.narrowing import present

CALLED: list[str] = []
STARTED = datetime(2026, 11, 25, tzinfo=UTC)
CLOCK = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
THROTTLES = "/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
COOLERS = "/sys/class/thermal/cooling_device{}/{}"
# Of a Pixel.
THERMAL_SERVICE = """
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=57.2, mType=0, mName=cpu3-silver-usr, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=31.7, mType=0, mName=cpu0-gold-usr, mStatus=0}
\tTemperature{mValue=32.300003, mType=0, mName=cpu0-silver-usr, mStatus=0}
\tTemperature{mValue=39.6, mType=2, mName=maxfg, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=1, mType=1, mName=battery}
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""


@pytest.mark.parametrize(("name", "needed"), [("runner.py", {"numpy"}), ("agent.py", set())])
def test_what_travels_is_one_file_of_python_3_8(name: str, needed: set[str]) -> None:
    tree = ast.parse(Path(runner.__file__).with_name(name).read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {present(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) == needed


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "executorch", "coreml", "tflm"])
def test_outputs_for_all_inputs_come_back_in_pytorchs_layout(format: str, tmp_path: Path) -> None:
    model, inputs = nn.Conv2d(3, 4, 3), torch.randn(3, 3, 8, 8)
    artifact = export(model, (inputs[:1],), format=format, out=tmp_path)
    seen: list[Array] = []

    def check_outputs(outputs: Sequence[Array]) -> str:
        seen.extend(outputs)
        return "seen"

    found = LocalDevice().measure(artifact, Conditions(runs=4), inputs=[inputs.numpy()], check_outputs=check_outputs)
    (expected,) = predict(get_exporter(format).load(artifact), artifact, [inputs.numpy()])
    np.testing.assert_array_equal(seen[0], expected)
    assert found.verified == "seen"
    reference = format in ("coreml", "tflm") and sys.platform != "darwin"
    assert any("reference evaluator" in remark for remark in found.remarks) == reference

    if format != "litert":
        return

    def refuse(outputs: Sequence[Array]) -> NoReturn:
        raise VerificationError("something else")

    with pytest.raises(VerificationError, match="something else"):
        LocalDevice().measure(artifact, Conditions(runs=4), inputs=[inputs.numpy()], check_outputs=refuse)
    assert LocalDevice().measure(artifact, Conditions(runs=4, affinity=(0,))).affinity == (0,)


@pytest.fixture
def measurement_request(tmp_path: Path) -> MeasurementRequest:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"x")
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    artifact = Artifact.describe(path, format="litert", precision="fp32", inputs=[spec], outputs=[spec], versions={})
    return MeasurementRequest((artifact,), Conditions(runs=4))


def answered(
    measurement_request: MeasurementRequest,
    milliseconds: tuple[float, ...] = (1.0,) * 9,
    *,
    settled: bool = True,
    machine: str = "x86_64",
    before: dict[str, str] | None = None,
    after: dict[str, str] | None = None,
    elapsed_s: float = 1.0,
    averaged: int = 1,
) -> Answer:
    timing = Timing(
        runtime="litert",
        runtime_version="1",
        timed="call",
        measurable=True,
        settled=settled,
        milliseconds=milliseconds,
        averaged=averaged,
        peak_memory_bytes=None,
    )
    return Answer(
        token=measurement_request.token,
        machine=machine,
        system="Linux",
        python="3",
        cores=4,
        affinity=None,
        elapsed_s=elapsed_s,
        before=before or {},
        after=after or {},
        timings=(timing,),
    )


def summed_up(measurement_request: MeasurementRequest, **kwargs: Any) -> Measurement:
    answer = answered(measurement_request, **kwargs)
    return summary(
        measurement_request.artifacts[0],
        answer.timings[0],
        request=measurement_request,
        answer=answer,
        device="d",
        emulated=False,
        started=STARTED,
    )


def test_what_may_not_be_quoted_is_marked_with_the_reason(measurement_request: MeasurementRequest) -> None:
    assert summed_up(measurement_request).stable
    slowing = (1.0,) * 6 + (1.4,) * 6
    cold, hot = {CLOCK: "2000000", THROTTLES: "3"}, {CLOCK: "1200000", THROTTLES: "3"}
    unsound: list[tuple[dict[str, Any], str]] = [
        ({"settled": False}, "did not settle"),
        ({"milliseconds": (1.0, 1.0, 1.2, 1.2, 1.2), "averaged": 10}, "median moved"),
        ({"milliseconds": (1.0, 2.0) * 6}, "interquartile range"),
        ({"milliseconds": slowing}, "median moved"),
        ({"milliseconds": slowing, "before": cold, "after": hot}, "throttled"),
        ({"before": cold, "after": {**cold, THROTTLES: "4"}}, "throttled"),
        ({"after": cooler("thermal-cpufreq-0", 2)}, "throttled"),
        ({"before": cooler("Processor", 1)}, "throttled"),
        (
            {"after": {"dumpsys thermalservice": THERMAL_SERVICE.replace("mValue=0, mType=2", "mValue=3, mType=2")}},
            "throttled",
        ),
        ({"machine": "aarch64", "before": {"/proc/cpuinfo": "vendor_id : AuthenticAMD"}}, "emulated"),
    ]
    for given, reason in unsound:
        found = summed_up(measurement_request, **given)
        assert not found.stable
        assert any(reason in remark for remark in found.remarks), (given, found.remarks)
        assert found.throttled == (reason == "throttled")
        assert found.emulated == (reason == "emulated")
    idle = summed_up(measurement_request, before=cold, after=hot)  # no run was slower: the clock fell when all was done
    assert idle.stable
    assert not idle.throttled
    for calm in (cooler("thermal-cpufreq-0", 0), cooler("pwm-fan", 3), {"dumpsys thermalservice": THERMAL_SERVICE}):
        assert summed_up(measurement_request, before=calm, after=calm).stable
    assert summed_up(
        measurement_request, milliseconds=(1.0, 1.0, 1.2, 1.2, 1.2)
    ).stable  # five runs say little; five means do not


def test_only_runs_that_are_long_enough_are_disturbed_by_waiting(measurement_request: MeasurementRequest) -> None:
    schedstat = "/proc/self/task/1/schedstat"
    files = {"before": {schedstat: "0 0 1"}, "after": {schedstat: "100000000 50000000 9"}}
    long = summed_up(measurement_request, milliseconds=(2.0,) * 12, **files)
    assert long.remarks == ("disturbed: it waited for a core in 33% of its time; end what else runs there",)
    short = summed_up(measurement_request, milliseconds=(0.05,) * 12, **files)
    assert (short.stable, short.load) == (True, long.load)


def cooler(name: str, state: int) -> dict[str, str]:
    return {COOLERS.format(0, "type"): name, COOLERS.format(0, "cur_state"): str(state)}


def test_android_says_how_hot_it_is_now() -> None:
    assert HostInfo({"dumpsys thermalservice": THERMAL_SERVICE}).temperature_celsius == 32.300003


def test_what_cannot_be_true_is_refused(measurement_request: MeasurementRequest) -> None:
    good = answered(measurement_request).model_dump(mode="json")
    assert read_answer(measurement_request, json.dumps(good).encode(), seconds=1.0, device="d") == answered(
        measurement_request
    )
    elsewhere = answered(measurement_request, (200.0,) * 9, elapsed_s=2.0).model_dump(mode="json")
    for said, reason in [
        (b"", "nothing"),
        (b"Segmentation fault", "Segmentation fault"),
        (json.dumps({**good, "token": "other"}).encode(), "another job"),
        (json.dumps({**good, "timings": []}).encode(), "another job"),
        (
            json.dumps(answered(measurement_request, (1.0,) * 8 + (-3.0,)).model_dump(mode="json")).encode(),
            "clock jumped",
        ),
        (json.dumps(answered(measurement_request, (1.0,)).model_dump(mode="json")).encode(), "not all positive"),
        (json.dumps(answered(measurement_request, elapsed_s=0.001).model_dump(mode="json")).encode(), "clock jumped"),
        (json.dumps(elsewhere).encode(), "clock jumped"),
    ]:
        with pytest.raises(DeviceError, match=reason):
            read_answer(measurement_request, said, seconds=1.0, device="d")
    failure = {"token": measurement_request.token, "failure": {"stage": "runtime", "message": "no such module"}}
    with pytest.raises(DeviceError, match=r"d: model\.tflite failed at the stage 'runtime': no such module"):
        read_answer(measurement_request, json.dumps(failure).encode(), seconds=1.0, device="d")


def test_core_ml_on_a_mac_which_is_mocked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Mac was at hand: this shows what Core ML is asked, not that it answers."""
    asked: list[tuple[str, str]] = []

    class MLModel:
        def __init__(self, path: str, compute_units: str) -> None:
            asked.append((path, compute_units))

        def get_compiled_model_path(self) -> str:
            return "compiled"

        def predict(self, values: dict[str, Array]) -> dict[str, Array]:
            return {"y": values["x"].astype(np.float64) * 2}

    mocked = types.ModuleType("coremltools")
    mocked.__dict__.update(
        __version__="9.0",
        models=types.SimpleNamespace(MLModel=MLModel),
        ComputeUnit=types.SimpleNamespace(CPU_AND_NE="the neural engine"),
    )
    monkeypatch.setitem(sys.modules, "coremltools", mocked)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    specs = [{"name": name, "shape": [1, 2], "dtype": "float32", "quantization": None} for name in "xy"]
    artifact = Artifact(
        format="coreml", precision="fp32", path=tmp_path, inputs=(), outputs=(), size_bytes=0, sha256="", versions={}
    )
    item = {
        "path": "model.mlpackage", "format": "coreml", "inputs": specs[:1], "outputs": specs[1:], "values": None,
        "answers": str(tmp_path / "answers.npz"), "compute_units": "CPU_AND_NE",
        **loader_elsewhere("coreml", device="a Mac", names="model.mlpackage").told(artifact, "model.mlpackage"),
        "loader": loader_here("coreml", device="this Mac", names="model.mlpackage").address,
    }  # fmt: skip
    job = {
        "artifacts": [item], "runs": 4, "warmup": 1, "settle_seconds": 0.0, "least_seconds": 0.0, "threads": 1,
        "affinity": [], "timed": "call", "operators": True, "read": [],
    }  # fmt: skip
    found = runner.measure(job)["timings"][0]
    assert asked == [("model.mlpackage", "the neural engine")]
    assert (found["runtime"], found["measurable"]) == ("coreml", True)
    assert found["runtime_version"].endswith("macOS 15.1")
    assert found["compute_units"] == "CPU_AND_NE"
    with np.load(tmp_path / "answers.npz") as answers:
        assert answers["0"].dtype == np.float32


class Noting:
    """A runtime that notes what it is asked; the runner makes it by its name."""

    runtime, runtime_version, measurable = "noting", "1", True

    def __init__(self, item: dict[str, Any]) -> None:
        self.name = item["path"]

    def load(self, item: dict[str, Any], threads: int) -> Self:
        del item, threads
        return self

    def run(self, inputs: list[Array]) -> None:
        del inputs
        CALLED.append(f"run {self.name}")

    def prepare(self, inputs: list[Array]) -> Callable[[], None]:
        del inputs
        CALLED.append(f"prepare {self.name}")
        return lambda: CALLED.append(f"compute {self.name}")


@pytest.mark.parametrize(
    ("timed", "turn"),
    [
        # Inside a network operations find less in the caches than when repeated, and more than after others.
        ("computation", ["prepare a", "compute a", "compute a", "prepare b", "compute b", "compute b"]),
        ("call", ["run a"] * 5 + ["run b"] * 5),
    ],
)
def test_computations_are_timed_as_inside_a_network_and_calls_as_a_user_has_them(timed: str, turn: list[str]) -> None:
    CALLED.clear()
    spec = {"name": "x", "shape": [1], "dtype": "float32", "quantization": None}
    items = [
        {
            "path": name,
            "format": "any",
            "inputs": [spec],
            "values": None,
            "answers": None,
            "systems": [],
            "loader": f"{__name__}:Noting",
        }
        for name in "ab"
    ]
    job = {
        "artifacts": items, "runs": 3, "warmup": 1, "settle_seconds": 0.0, "least_seconds": 0.0, "threads": 1,
        "affinity": [], "timed": timed, "operators": False, "read": [],
    }  # fmt: skip
    timings = runner.measure(job)["timings"]
    rounds = 3 if timed == "computation" else 1
    assert CALLED[-rounds * len(turn) :] == rounds * turn
    assert [len(one["milliseconds"]) for one in timings] == [3 if timed == "computation" else 4] * 2


@pytest.mark.skipif(sys.platform == "darwin", reason="what a Mac does is not what others say")
def test_without_a_mac_core_ml_is_refused_by_the_runner() -> None:
    loader = loader_elsewhere("coreml", device="a board", names="model.mlpackage")
    item = {"format": "coreml", "loader": loader.address, "systems": loader.systems}
    with pytest.raises(runner.Failure, match=f"coreml runs on darwin alone, and this is {sys.platform}") as refusal:
        runner._runtime_class(item)
    assert refusal.value.stage == "format"


def test_cores_that_cannot_be_chosen_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(runner.Failure, match=r"bound to the cores \[0\]"):
        runner._bind([0])
    runner._bind([])
