"""Android over adb: the real client, and a daemon in the place of a phone. No figure here is a phone's."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sekron_edge.artifacts import Array, Artifact, PrimitiveExporter, TensorSpec, get_exporter
from sekron_edge.errors import DeviceError, UnreachableError, UnsupportedError
from sekron_edge.exporters.executorch._android import ExecutorRunner
from sekron_edge.exporters.tflite._android import BenchmarkModel
from sekron_edge.latency import _calibration, calibrate
from sekron_edge.measurement import Conditions, MeasurementStore, _hostinfo, open_device
from sekron_edge.measurement._hostinfo import HostInfo
from sekron_edge.measurement._protocol import MeasurementRequest
from sekron_edge.measurement.transports import adb
from tests.measurement.boards import Board
from tests.measurement.phones import Phone

QUICK = Conditions(runs=10, timeout_s=60)


def test_litert_states_means(at_phone: Phone, doubler: Artifact) -> None:
    found = open_device("adb:phone").measure(doubler, Conditions(runs=50, operators=True, timeout_s=60))
    assert (found.device, found.runtime, found.runs, found.averaged) == ("adb:phone", "litert", 50, 10)
    assert found.runtime_version.startswith("benchmark_model ")
    assert found.median_ms == pytest.approx(8.02025)
    assert (found.p90_ms, found.iqr_ms) == (None, None)
    assert found.timed == "computation"
    assert found.peak_memory_bytes == int(4.5 * 2**20)
    seen = [(operator.kind, operator.name, operator.milliseconds) for operator in found.operators]
    assert seen == [("CONV_2D", "conv;relu", 6.001), ("FULLY_CONNECTED", "linear", 2.019)]
    assert [kept.measurement for kept in MeasurementStore.default().measurements()] == [found]


def test_executorch_states_runs_and_its_outputs_are_checked(
    at_phone: Phone, at_board: Board, same: Artifact, tmp_path: Path
) -> None:
    at_board.write(phone=at_phone.settings(etdump=str(tmp_path / "traces")))
    inputs = np.arange(8, dtype=np.float32).reshape(4, 2)
    seen = []

    def check_outputs(outputs: Sequence[Array]) -> str:
        seen.append(outputs[0])
        return "the same"

    found = open_device("adb:phone").measure(
        same, Conditions(runs=20, warmup=3, timeout_s=60), inputs=[inputs], check_outputs=check_outputs
    )
    np.testing.assert_array_equal(seen[0], inputs)
    assert (found.verified, found.averaged, found.runs) == ("the same", 1, 20)
    assert 4 <= found.median_ms < 5
    assert found.p90_ms is not None
    assert (tmp_path / "traces" / f"{same.path.stem}.etdump").read_text() == "trace\n"


def test_litert_outputs_are_checked_where_the_program_writes_them(
    at_phone: Phone, at_board: Board, same: Artifact
) -> None:
    spec = TensorSpec(name="x:0", shape=(1, 2), dtype="float32")
    model = same.model_copy(update={"format": "litert", "inputs": (spec,)})
    inputs = np.arange(8, dtype=np.float32).reshape(4, 2)
    seen = []

    def check_outputs(outputs: Sequence[Array]) -> str:
        seen.append(outputs[0])
        return "the same"

    found = open_device("adb:phone").measure(model, QUICK, inputs=[inputs], check_outputs=check_outputs)
    np.testing.assert_array_equal(seen[0], inputs)
    assert found.verified == "the same"
    at_board.write(phone=at_phone.settings("output="))  # one of before it could
    assert open_device("adb:phone").measure(model, QUICK, inputs=[inputs], check_outputs=check_outputs).verified is None
    at_board.write(phone=at_phone.settings('[ -n "$output" ] && { echo >"$output"; output=; }'))
    with pytest.raises(DeviceError, match="gave 1 bytes for outputs of 8"):
        open_device("adb:phone").measure(model, QUICK, inputs=[inputs], check_outputs=check_outputs)
    assert len(seen) == 1


def test_what_is_asked_of_benchmark_model_names_all_inputs(same: Artifact) -> None:
    specs = [TensorSpec(name=name, shape=shape, dtype="float32") for name, shape in (("a:0", (1, 2)), ("b", (1, 3, 4)))]
    assert BenchmarkModel().given(same.model_copy(update={"inputs": tuple(specs)}), ["0.in", "1.in"]) == [
        "--input_layer=a:0,b",
        "--input_layer_shape=1,2:1,3,4",
        "--input_layer_value_files=a::0:0.in,b:1.in",
    ]


def test_an_old_phone_hands_no_status_on(
    at_board: Board, doubler: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = Phone(tmp_path, shell_2=False)
    try:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", old.environment["ANDROID_ADB_SERVER_PORT"])
        at_board.write(phone=old.settings(), broken=old.settings("kill -SEGV $$"))
        assert open_device("adb:phone").measure(doubler, QUICK).runs == 10
        with pytest.raises(DeviceError, match="SIGSEGV"):
            open_device("adb:broken").measure(doubler, QUICK)
        old.wait_for_silence()
    finally:
        old.stop()


FAULTS = {
    "crash": ("kill -SEGV $$", "SIGSEGV"),
    "killed": ("kill -KILL $$", "SIGKILL.*enough memory"),
    "exit": ("exit 1", "status 1"),
    "foreign": ("exit 126", "another processor"),
    "garbage": ("head -c 999 /dev/urandom; exit 0", "printed no times"),
    "silent": ("exit 0", "printed no times"),
    "hang": ("sleep 1000", "longer than 4 s"),
    "clock": ("echo 'count=99'; echo 'Inference (avg): 9e15'; exit 0", "clock jumped"),
    "escapes": (r"printf '\033[2J'; exit 1", "status 1"),
    "flood": ("yes", "text of more than 16,777,216 bytes"),
    "digits": (
        "echo count=$(head -c 9999 /dev/zero | tr '\\0' 9); echo 'Inference (avg): 9'; exit 0",
        "printed no times",
    ),
    "infinite": (
        "echo count=99; echo 'Inference (avg): 9'; echo 'Memory footprint delta: overall=9e999'; exit 0",
        "printed no times",
    ),
    "backwards": ("echo 'count=99'; echo 'Inference (avg): 0'; exit 0", "clock jumped"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_and_leaves_nothing(
    fault: str, at_phone: Phone, at_board: Board, doubler: Artifact
) -> None:
    line, message = FAULTS[fault]
    at_board.write(phone=at_phone.settings(line))
    with pytest.raises(DeviceError, match=f"(?s)adb:phone: .*{message}") as raised:
        open_device("adb:phone").measure(doubler, Conditions(runs=10, timeout_s=4 if fault == "hang" else 60))
    assert "\033" not in str(raised.value)
    at_phone.wait_for_silence()
    assert not MeasurementStore.default().measurements()


def test_outputs_of_any_size_are_not_taken(at_phone: Phone, at_board: Board, doubler: Artifact) -> None:
    at_board.write(phone=at_phone.settings('[ -n "$output" ] && head -c 99000000 /dev/zero > "$output"; exit 0'))
    request = MeasurementRequest((doubler,), QUICK, inputs=(np.ones((1, 2), np.float32),), wants_outputs=True)
    with pytest.raises(DeviceError, match="a file of more than 8 bytes"):
        open_device("adb:phone").carry_out(request)
    at_phone.wait_for_silence()


def test_a_full_phone(at_phone: Phone, doubler: Artifact) -> None:
    limit = at_phone.work.with_name("limit")
    limit.write_text("1000")
    try:
        with pytest.raises(DeviceError, match="No space left on device; free some space there"):
            open_device("adb:phone").measure(doubler, Conditions(timeout_s=60))
    finally:
        limit.unlink()


def test_a_phone_that_is_unplugged_cleans_up_by_itself(
    at_phone: Phone, at_board: Board, doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb, "_CLEANING_S", 1.0)
    at_board.write(phone=at_phone.settings("sleep 1000"))
    failed = []

    def measure() -> None:
        try:
            open_device("adb:phone").measure(doubler, Conditions(runs=10, timeout_s=5))
        except DeviceError as error:
            failed.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    while thread.is_alive() and not at_phone.runs("1000"):
        time.sleep(0.02)
    at_phone.unplug()
    thread.join(timeout=60)
    assert isinstance(failed[0], UnreachableError), failed
    at_phone.wait_for_silence()
    at_phone.plug_in()
    at_board.write(phone=at_phone.settings())
    assert open_device("adb:phone").measure(doubler, QUICK).runs == 10


def test_a_phone_that_is_busy_may_be_tried_again_and_what_died_there_is_swept(
    at_phone: Phone, doubler: Artifact
) -> None:
    at_phone.work.mkdir()
    guard = at_phone.work / "guard"
    guard.write_text(str(os.getpid()))
    with pytest.raises(UnreachableError, match="another measurement runs there"):
        open_device("adb:phone").measure(doubler, QUICK)
    assert guard.exists()
    guard.write_text("4194303")  # no process has this number
    assert open_device("adb:phone").measure(doubler, QUICK).runs == 10
    assert not at_phone.work.exists()


def test_what_cannot_be_measured_over_adb_is_said(
    at_phone: Phone, at_board: Board, doubler: Artifact, same: Artifact
) -> None:
    device = open_device("adb:phone")
    with pytest.raises(UnsupportedError, match="executorch is calibrated with"):
        device.time_operators([same], QUICK)
    at_board.write(phone={"host": at_phone.serial})
    with pytest.raises(DeviceError, match=r"benchmark_model is needed.*binaries"):
        open_device("adb:phone").measure(doubler)
    at_board.write(phone=at_phone.settings(host="127.0.0.1:1"))
    with pytest.raises(UnreachableError, match="cannot be reached"):
        open_device("adb:phone").measure(doubler, Conditions(timeout_s=30))


def thermal(celsius: float, slowed: int = 0) -> str:
    return (
        "Thermal Status: 0\nCurrent temperatures from HAL:\n"
        f" Temperature{{mValue={celsius}, mType=0, mName=cpu0, mStatus=0}}\n"
        f"Current cooling devices from HAL:\n CoolingDevice{{mValue={slowed}, mType=2, mName=thermal-cpufreq-0}}"
    )


@pytest.fixture
def warm_phone(at_phone: Phone, at_board: Board, monkeypatch: pytest.MonkeyPatch) -> Phone:
    # This machine's own sensors are none of the phone's.
    monkeypatch.setattr(_hostinfo, "READ", (_hostinfo.CPUINFO,))
    monkeypatch.setattr(adb, "_COOLING_POLL_S", 0.2)
    at_board.write(phone=at_phone.settings(cool_celsius=40.0))
    return at_phone


def test_a_hot_phone_is_waited_for(warm_phone: Phone, doubler: Artifact) -> None:
    warm_phone.says(thermal(50.5))
    cooled = threading.Timer(1.0, warm_phone.says, [thermal(39.5)])
    cooled.start()
    found = open_device("adb:phone").measure(doubler, QUICK)
    cooled.join()
    assert found.environment.temperature_celsius == 39.5
    assert not found.throttled


def test_a_hot_phone_is_given_up_when_it_does_not_cool(warm_phone: Phone, doubler: Artifact) -> None:
    warm_phone.says(thermal(50))
    with pytest.raises(DeviceError, match="still at 50 °C"):
        open_device("adb:phone").measure(doubler, Conditions(timeout_s=3))
    warm_phone.says(None)
    with pytest.raises(DeviceError, match="does not say how hot it is"):
        open_device("adb:phone").measure(doubler, Conditions(timeout_s=3))
    assert MeasurementStore.default().measurements() == []


def test_a_phone_that_holds_its_clock_down_is_marked(warm_phone: Phone, doubler: Artifact) -> None:
    warm_phone.says(thermal(30, slowed=2))
    found = open_device("adb:phone").measure(doubler, QUICK)
    assert found.throttled
    assert not found.stable


@pytest.mark.slow
def test_a_phone_is_calibrated(
    at_phone: Phone, at_board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the place of the program that times is one that states a time for every ten thousand bytes of the file."""
    line = 'echo "count=$runs"; echo "Inference (avg): $(($(wc -c <"$model") / 10000 + 2))"; exit 0'
    at_board.write(phone=at_phone.settings(line))
    at_phone.says(thermal(30, slowed=1))
    exporter = get_exporter("litert")
    assert isinstance(exporter, PrimitiveExporter)
    monkeypatch.setattr(type(exporter), "primitive_count", 50)
    monkeypatch.setattr(_calibration, "_ROUNDS", 2)
    store = MeasurementStore(tmp_path / "measurements.sqlite")
    model = calibrate("litert", store=store, device=open_device("adb:phone"))
    assert "measured on" in model.source
    assert "held its clock down" in model.source
    (kept,) = store.calibrations()
    assert kept.timings == len(store.medians(kept.id)) > 40
    assert kept.runtime_version.startswith("benchmark_model ")
    for primitive, milliseconds in list(store.medians(kept.id).items())[::10]:
        size = exporter.export_primitive(primitive, tmp_path / "one.tflite", precision="fp32").path.stat().st_size
        assert milliseconds == (size // 10000 + 2) / 1000
    assert MeasurementStore.default().measurements() == []

    at_board.write(phone=at_phone.settings("case $model in 7.*) kill -SEGV $$ ;; esac"))
    with pytest.raises(DeviceError, match=r"(?s)measuring 7\.tflite with benchmark_model failed: .*SIGSEGV"):
        calibrate("litert", store=store, device=open_device("adb:phone"))
    assert len(store.calibrations()) == 1


def test_big_cores_are_those_that_are_not_slowest() -> None:
    def texts(*clocks: int) -> HostInfo:
        path = "/sys/devices/system/cpu/cpu{}/cpufreq/cpuinfo_max_freq"
        return HostInfo({path.format(index): str(clock) for index, clock in enumerate(clocks)})

    assert texts(1803000, 1803000, 2348000, 2850000).big_cores == (2, 3)
    assert texts(1500000, 1500000).big_cores == ()
    assert texts().big_cores == ()
    assert HostInfo({}).big_cores == ()


def test_an_older_executor_runner_states_sums(doubler: Artifact) -> None:
    tool = ExecutorRunner()
    cold = "I 00:00:00.1 executor_runner.cpp:2] Model executed successfully 10 time(s) in 120.0 ms."
    warm = "I 00:00:00.1 executor_runner.cpp:2] Model executed successfully 20 time(s) in 220.0 ms."
    request = MeasurementRequest((doubler,))
    assert len(tool.launches("m", request)) == 6
    found = tool.read([cold, *[warm] * 5], request)
    assert found.milliseconds == (10.0,) * 5
    assert found.averaged == 10
    with pytest.raises(DeviceError, match="printed no times"):
        BenchmarkModel().read(["count=3 avg=1\nInference (avg): 1"], request)


def test_the_adb_client_is_the_real_one() -> None:
    assert (
        "Android Debug Bridge" in subprocess.run(["adb", "version"], capture_output=True, text=True, check=True).stdout
    )
