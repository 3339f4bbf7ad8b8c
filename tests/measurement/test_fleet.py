"""Several devices at once, the store, and what may be compared."""

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.cli import _measurements, main
from sekron_edge.errors import ConfigError, DeviceError, UnreachableError, VerificationError
from sekron_edge.measurement import (
    Conditions,
    Device,
    Environment,
    LocalDevice,
    Measurement,
    MeasurementReport,
    MeasurementRequest,
    MeasurementStore,
    Outcome,
    Probe,
    Retries,
    _store,
    compare_latencies,
    measure_fleet,
    open_device,
)
from sekron_edge.primitives import Linear
from tests.measurement.boards import Board
from tests.narrowing import present

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "measurements.json"
QUICK = Conditions(runs=4, timeout_s=30)
SOON = Retries(times=2, backoff_s=0.01)


def a_measurement(**changes: Any) -> Measurement:
    environment = Environment(machine="aarch64", system="Linux", cpu="Cortex-A76", governor="performance")
    given = {
        "artifact_name": "model.tflite", "artifact_sha256": "ab" * 32, "format": "litert", "precision": "fp32",
        "device": "ssh:board", "runtime": "litert", "runtime_version": "2.3.0", "threads": 1, "warmup": 10, "runs": 50,
        "median_ms": 2.0, "p90_ms": 2.2, "iqr_ms": 0.1, "min_ms": 1.9, "peak_memory_bytes": None, "stable": True,
        "measured_at": datetime(2026, 11, 25, tzinfo=UTC), "environment": environment,
    }  # fmt: skip
    environment = environment.model_copy(update=changes.pop("environment", {}))
    return Measurement.model_validate({**given, "environment": environment, **changes})


class Lost(Device):
    """A device that is unreachable so many times, and never answers after its first artifact."""

    name = "lost"

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        self.calls += 1
        if self.calls <= self.times:
            raise UnreachableError("lost: it cannot be reached")
        return LocalDevice().carry_out(request)


def test_the_published_schema_is_current() -> None:
    published = MeasurementReport.model_json_schema(mode="serialization")
    assert json.loads(SCHEMA.read_text()) == published, (
        "write docs/schemas/measurements.json anew: python -m tests.measurement.schema"
    )
    jsonschema.Draft202012Validator.check_schema(published)


def test_boards_are_measured_at_once_and_what_one_loses_is_not_lost(at_board: Board, doubler: Artifact) -> None:
    at_board.write(
        board=at_board.settings("stub"),
        broken=at_board.settings("crash", cache=str(at_board.home / "broken")),
        away=at_board.settings("stub", port=1),
    )
    other = doubler.model_copy(update={"format": "tflm"})

    def check_outputs(outputs: Sequence[Array]) -> str:
        np.testing.assert_array_equal(outputs[0], 2 * inputs[0])
        return "twice"

    def refuse(outputs: Sequence[Array]) -> NoReturn:
        raise VerificationError("it is not thrice")

    inputs = (np.ones((3, 2), np.float32),)
    probes = [Probe(doubler, inputs, check_outputs), Probe(other), Probe(doubler, inputs, refuse)]
    told: list[str] = []
    devices = [open_device(f"ssh:{name}") for name in ("board", "broken", "away")]
    report = measure_fleet(probes, devices, QUICK, retries=SOON, tell=told.append)
    (found,) = report.measurements
    assert (found.device, found.verified, found.artifact_name) == ("ssh:board", "twice", doubler.path.name)
    assert [(failure.device, failure.kind) for failure in report.failures] == [
        ("ssh:broken", "device"), ("ssh:away", "device"),
        ("ssh:board", "unsupported"), ("ssh:broken", "unsupported"), ("ssh:away", "device"),
        ("ssh:board", "verification"), ("ssh:broken", "device"), ("ssh:away", "device"),
    ]  # fmt: skip
    assert "not tried any more" in report.failures[-1].message
    assert len([line for line in told if "trying again" in line]) == 2
    (kept,) = MeasurementStore.default().measurements()
    assert kept.measurement == found
    jsonschema.validate(json.loads(report.model_dump_json()), json.loads(SCHEMA.read_text()))


def test_what_was_measured_under_the_same_conditions_is_not_measured_again(at_board: Board, doubler: Artifact) -> None:
    at_board.write(board=at_board.settings("stub"))
    board = open_device("ssh:board")
    (first,) = measure_fleet([Probe(doubler)], [board], QUICK).measurements
    at_board.write(board=at_board.settings("crash"))
    broken = open_device("ssh:board")
    assert measure_fleet([Probe(doubler)], [broken], QUICK, resume=True).measurements == (first,)
    for changed in (Conditions(runs=10**6), Conditions(runs=4, threads=2)):
        assert measure_fleet([Probe(doubler)], [broken], changed, resume=True).failures
    assert measure_fleet([Probe(doubler, check_outputs=lambda _: "checked")], [broken], QUICK, resume=True).failures


def test_what_a_device_chose_by_itself_is_measured_again_only_where_it_was_asked_for(doubler: Artifact) -> None:
    now = {"artifact_sha256": doubler.sha256, "device": "lost", "measured_at": datetime.now(UTC)}
    chosen = a_measurement(**now, affinity=(4, 5), affinity_by_device=True, timed="computation")
    MeasurementStore.default().keep(chosen)
    resumed = partial(measure_fleet, [Probe(doubler)], [Lost(99)], retries=Retries(times=0), resume=True)
    assert resumed().measurements == (chosen,)
    assert resumed(Conditions(affinity=(4, 5))).failures
    given = chosen.model_copy(update={"affinity_by_device": False})
    MeasurementStore.default().keep(given)
    assert resumed(Conditions(affinity=(4, 5))).measurements == (given,)


def test_a_device_is_tried_again_as_often_as_asked(doubler: Artifact) -> None:
    for times, calls in [(2, 3), (3, 3)]:
        device = Lost(times)
        report = measure_fleet([Probe(doubler)], [device], QUICK, retries=SOON)
        assert device.calls == calls
        assert ("cannot be reached" in report.failures[0].message) == (times == 3)
    with pytest.raises(ConfigError, match="named once"):
        measure_fleet([], [LocalDevice(), LocalDevice()], QUICK)


def test_the_store_gives_back_what_was_put_in(tmp_path: Path) -> None:
    store = MeasurementStore(tmp_path / "new" / "measurements.sqlite")
    first, second = a_measurement(), a_measurement(device="local", artifact_sha256="cd" * 32, artifact_name="x.pte")
    numbers = [store.keep(first), store.keep(second)]
    assert [store.measurement(number) for number in numbers] == [first, second]
    assert [kept.measurement for kept in store.measurements()] == [first, second]
    filters: list[tuple[dict[str, Any], list[Measurement]]] = [
        ({"device": "local"}, [second]),
        ({"artifact": "model.tflite"}, [first]),
        ({"artifact": "cdcd"}, [second]),
        ({"artifact": "dc"}, []),
        ({"since": first.measured_at + timedelta(seconds=1)}, []),
    ]
    for only, expected in filters:
        assert [kept.measurement for kept in store.measurements(**only)] == expected
    with pytest.raises(DeviceError, match="emulated"):
        store.keep(a_measurement(emulated=True))
    with pytest.raises(ConfigError, match="no measurement 9"):
        store.measurement(9)


CHANGES: dict[str, dict[str, Any]] = {
    "artifact": {"artifact_sha256": "ef" * 32},
    "device": {"device": "ssh:other", "environment": {"cpu": "Cortex-A72", "governor": "ondemand"}},
    "governor": {"environment": {"governor": "powersave"}},
    "runtime": {"runtime_version": "2.2.0"},
    "threads": {"threads": 4},
    "compute units": {"compute_units": "CPU_ONLY"},
    "what is timed": {"timed": "computation"},
}


def test_a_store_of_before_takes_calibrations_without_quantiles(tmp_path: Path) -> None:
    path = tmp_path / "measurements.sqlite"
    before = re.sub(r"iqr_ms REAL,", "iqr_ms REAL NOT NULL,", _store._TABLES)
    measured = [a_measurement()]
    store = MeasurementStore(path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(before)
        old = (1, "Linear", json.dumps(asdict(Linear(1, 2, 3))), 2.0, 0.1, 1.9, 50)
        database.execute("INSERT INTO timings VALUES (?, ?, ?, ?, ?, ?, ?)", old)
        database.execute("INSERT INTO calibrations VALUES (1, 'x', 'litert', '1', 'fp32', 1, '{}')")
        database.commit()
    number = store.add("fp32", 1, [Linear(1, 8, 8)], [measured[0].model_copy(update={"iqr_ms": None})])
    assert store.medians(1) == {Linear(1, 2, 3): 2.0}
    assert store.medians(number) == {Linear(1, 8, 8): 2.0}


@given(chosen=st.sets(st.sampled_from(sorted(CHANGES))))
def test_measurements_that_differ_in_more_than_one_thing_are_not_compared(chosen: set[str]) -> None:
    changes: dict[str, Any] = {"median_ms": 3.0}
    environment: dict[str, str] = {}
    for name in sorted(chosen):
        changes |= {key: value for key, value in CHANGES[name].items() if key != "environment"}
        environment |= CHANGES[name].get("environment", {})
    second = a_measurement(**changes, environment=environment)
    counted = chosen - {"governor"} if "device" in chosen else chosen
    if len(counted) > 1:
        with pytest.raises(ConfigError, match=".*".join(n for n in CHANGES if n in counted)):
            compare_latencies(a_measurement(), second)
        return
    found = compare_latencies(a_measurement(), second)
    assert found.differs == next(iter(counted), None)
    assert found.ratio == 1.5
    assert not found.doubts


def test_another_format_brings_its_runtime_and_doubts_are_handed_on() -> None:
    other = {"format": "executorch", "runtime": "executorch", "runtime_version": "1.5.1", "artifact_sha256": "0" * 64}
    found = compare_latencies(a_measurement(), a_measurement(**other, stable=False, remarks=("throttled: it was hot",)))
    assert found.differs == "artifact"
    assert "throttled" in found.doubts[0]
    assert "not to be quoted" in str(found)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: int | Path | str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sekron-edge", *map(str, arguments)])
    try:
        main()
        code: object = 0
    except SystemExit as ended:
        code = ended.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


def test_bench_prints_one_table_of_all_devices(
    at_board: Board,
    doubler: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    doubler.path.with_name(f"{doubler.path.name}.json").write_text(doubler.model_dump_json())
    at_board.write(
        board=at_board.settings("stub"),
        second=at_board.settings("stub", cache=str(at_board.home / "second")),
        broken=at_board.settings("crash", cache=str(at_board.home / "broken")),
    )
    both = ["--device", "ssh:board", "--device", "ssh:second"]
    code, out, _ = run(monkeypatch, capsys, "bench", doubler.path, *both, "--runs", 4)
    assert code == 0
    assert out.count(doubler.path.name) == 2
    assert out.count("median ms") == 1
    code, out, err = run(
        monkeypatch, capsys, "bench", doubler.path, *both, "--device", "ssh:broken", "--runs", 4, "--json"
    )
    assert code == 5
    assert "1 of 3 measurements were not made" in err
    report = json.loads(out)
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert len(report["measurements"]) == 2
    assert "SIGSEGV" in report["failures"][0]["message"]
    code, _, err = run(monkeypatch, capsys, "bench", doubler.path, "--cores", "a")
    assert code == 2
    assert "cores are numbers" in err
    code, _, err = run(monkeypatch, capsys, "bench", doubler.path, "--device", "moon")
    assert code == 2
    assert "no device 'moon'" in err

    code, out, _ = run(monkeypatch, capsys, "measurements", "list", "--device", "ssh:second", "--json")
    kept = json.loads(out)
    assert [one["measurement"]["device"] for one in kept] == ["ssh:second"] * 2
    code, out, _ = run(monkeypatch, capsys, "measurements", "list")
    assert out.count(doubler.path.name) == 4
    code, out, _ = run(monkeypatch, capsys, "measurements", "show", kept[0]["id"])
    assert doubler.sha256 in out
    code, out, _ = run(monkeypatch, capsys, "measurements", "compare", kept[0]["id"], kept[1]["id"])
    assert "the same, measured twice" in out
    code, out, _ = run(monkeypatch, capsys, "measurements", "export")
    jsonschema.validate(json.loads(out), json.loads(SCHEMA.read_text()))
    assert len(json.loads(out)["measurements"]) == 4
    run(monkeypatch, capsys, "measurements", "export", "--out", tmp_path / "all.csv")
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert len(lines) == 5
    assert "environment_cpu" in lines[0]
    code, _, err = run(monkeypatch, capsys, "measurements", "export", "--out", tmp_path / "all.xls")
    assert code == 2
    assert ".csv" in err


def test_wrong_outputs_end_in_exit_code_4(
    at_board: Board, doubler: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def probes(_: Path) -> list[Probe]:
        def check_outputs(outputs: Sequence[Array]) -> NoReturn:
            raise VerificationError("these are not the golden outputs")

        return [Probe(doubler, (np.ones((1, 2), np.float32),), check_outputs)]

    at_board.write(board=at_board.settings("stub"))
    monkeypatch.setattr(_measurements, "_probes", probes)
    code, out, err = run(monkeypatch, capsys, "bench", doubler.path, "--device", "ssh:board", "--runs", 4, "--json")
    assert code == 4
    assert json.loads(out)["failures"][0]["kind"] == "verification"
    assert "not made" in err
    assert MeasurementStore.default().measurements() == []


def test_an_interrupted_bench_ends_at_once_and_keeps_what_it_has(at_board: Board, doubler: Artifact) -> None:
    doubler.path.with_name(f"{doubler.path.name}.json").write_text(doubler.model_dump_json())
    at_board.write(board=at_board.settings("stub"), stuck=at_board.settings("hang", cache=str(at_board.home / "stuck")))
    running = subprocess.Popen(
        [sys.executable, "-m", "sekron_edge", "bench", doubler.path, "--device", "ssh:board", "--device", "ssh:stuck",
         "--timeout", "120"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Shells start what runs in the background with the signal ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread holds a lock of that
    )  # fmt: skip
    said: list[str] = []
    while not said or "on ssh:board: " not in said[-1]:  # the board is done
        said.append(present(running.stderr).readline())
        assert said[-1], said
    end = time.monotonic() + 60
    while time.monotonic() < end and not list(at_board.home.glob("stuck/sekron-edge-job-*")):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, at_last = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "--resume" in at_last
    at_board.wait_for_silence()
    assert not (at_board.home / "stuck").exists()
    (kept,) = MeasurementStore.default().measurements()
    assert kept.measurement.device == "ssh:board"
