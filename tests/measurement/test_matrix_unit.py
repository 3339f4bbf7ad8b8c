"""Doing without the matrix unit of this machine, which phones and boards lack."""

import subprocess
import sys
from pathlib import Path

import pytest

from sekron_edge.exporters.tflite._litert import LiteRTExporter
from sekron_edge.measurement import Conditions, LocalDevice, VectorUnits, comparable_device, this_machine
from sekron_edge.measurement._hostinfo import CPUINFO, MATRIX_UNIT, HostInfo
from sekron_edge.primitives import Conv

needs_amx = pytest.mark.skipif(not this_machine().matrix_unit, reason="this machine lends no AMX unit")


def test_a_machine_that_refuses_its_unit_is_another_machine() -> None:
    named = {CPUINFO: "model name : Some Xeon"}
    assert HostInfo(named).cpu_model == "Some Xeon"
    assert not HostInfo(named).matrix_unit
    lent, refused = (HostInfo(named | {MATRIX_UNIT: state}) for state in ("lent", "refused"))
    assert (lent.cpu_model, lent.matrix_unit) == ("Some Xeon", True)
    assert (refused.cpu_model, refused.matrix_unit) == ("Some Xeon without AMX", False)


@needs_amx
def test_a_process_that_refused_the_unit_and_its_children_have_none() -> None:
    asks = "from sekron_edge.measurement import this_machine; print(this_machine().cpu_model)"
    refuses = (
        "import subprocess, sys; from sekron_edge.measurement import refuse_matrix_unit; refuse_matrix_unit();"
        f"subprocess.run([sys.executable, '-c', {asks!r}], check=True)"
    )
    said = subprocess.run([sys.executable, "-c", refuses], capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"{this_machine().cpu_model} without AMX"
    assert this_machine().matrix_unit


@needs_amx
@pytest.mark.slow
def test_vector_units_compute_few_channels_faster_and_say_what_they_are(tmp_path: Path) -> None:
    narrow = Conv((1, 4, 32, 32), 4, (3, 3), (1, 1), (1, 1), 1, (32, 32), (1, 1))
    artifact = LiteRTExporter().export_primitive(narrow, tmp_path / "narrow.tflite", precision="int8")
    alone = comparable_device()
    assert isinstance(alone, VectorUnits)
    (with_unit,), (without,) = (
        device.time_computations([artifact], Conditions(warmup=2)) for device in (LocalDevice(), alone)
    )
    assert without.environment.cpu == alone.name == f"{with_unit.environment.cpu} without AMX"
    assert without.min_ms < with_unit.min_ms / 2


def test_without_a_unit_there_is_nothing_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekron_edge.measurement.transports.local.this_machine", lambda: HostInfo({}))
    assert comparable_device() is None
