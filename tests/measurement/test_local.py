"""This machine as a device, with the runtimes that ship."""

import os
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from sekron_edge import files
from sekron_edge.artifacts import Artifact, export
from sekron_edge.errors import ConfigError, DeviceError, UnsupportedError
from sekron_edge.measurement import Conditions, LocalDevice, Measurement, measure
from tests.measurement.boards import STUB
from tests.narrowing import present


@pytest.fixture(scope="module", params=["litert", "executorch"])
def artifacts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    folder = tmp_path_factory.mktemp(request.param)
    x = torch.randn(1, 8, 28, 28)

    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(8, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 8, 3, padding=1))

    return [export(network(w), (x,), format=request.param, out=folder, name=f"w{w}") for w in (8, 128)]


@pytest.mark.slow
def test_together_the_heavier_model_is_slower_and_larger(artifacts: list[Artifact]) -> None:
    small, large = LocalDevice().measure_together(artifacts, Conditions(runs=10, timeout_s=60))
    assert small.median_ms < large.median_ms
    assert 0 < present(small.min_ms) <= small.median_ms <= present(small.p90_ms)
    assert small.artifact_sha256 == artifacts[0].sha256
    assert small.peak_memory_bytes is None
    alone, larger = (measure(artifact, runs=4).peak_memory_bytes for artifact in artifacts)
    # Peaks are counted in pages, and differ by some from run to run.
    assert alone is None or larger is None or alone < larger + (1 << 18)
    assert small.runs >= 10
    assert small.stable == (not small.remarks)
    assert Measurement.model_validate_json(small.model_dump_json()) == small


@pytest.mark.slow
def test_a_damaged_artifact_is_one_clear_error(artifacts: list[Artifact], tmp_path: Path) -> None:
    path = tmp_path / f"broken{artifacts[0].path.suffix}"
    path.write_bytes(b"not a model")
    damaged = artifacts[0].model_copy(update={"path": path, "sha256": files.sha256(path)})
    with pytest.raises(DeviceError, match=r"broken.*'load'"):
        measure(damaged, timeout_s=60)


def test_bad_arguments_name_what_was_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"x")
    nothing = Artifact.describe(path, format="litert", precision="fp32", inputs=[], outputs=[], versions={})
    with pytest.raises(ConfigError, match="no device 'moon'"):
        measure(nothing, "moon")
    with pytest.raises(DeviceError, match="at least 1"):
        measure(nothing, threads=0)
    other = nothing.model_copy(update={"format": "executorch"})
    with pytest.raises(DeviceError, match="one format"):
        LocalDevice().measure_together([nothing, other])


@pytest.mark.slow
def test_what_runs_elsewhere_alone_is_said_so(tmp_path: Path) -> None:
    artifact = export(nn.Conv2d(3, 4, 3), (torch.randn(1, 3, 8, 8),), format="executorch:vulkan", out=tmp_path)
    with pytest.raises(UnsupportedError, match="measure it elsewhere"):
        measure(artifact, timeout_s=60)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("crash", "SIGSEGV"),
        ("child", "SIGSEGV"),
        ("exit", "failed"),
        ("grows", "MemoryError"),
        ("garbage", "is no answer"),
        ("hang", "longer than"),
    ],
)
def test_a_fault_of_the_runtime_is_one_error_and_leaves_no_process(
    fault: str, message: str, doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STUB))
    monkeypatch.setenv("SEKRON_EDGE_FAULT", fault)
    with pytest.raises(DeviceError, match=message):
        measure(doubler, runs=4, timeout_s=4 if fault == "hang" else 60)
    assert not left_behind()


def test_a_child_that_outlives_the_runtime_is_ended(doubler: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STUB))
    monkeypatch.setenv("SEKRON_EDGE_FAULT", "lasting")
    assert measure(doubler, runs=4, timeout_s=60).runs >= 4
    assert not left_behind()


def left_behind() -> list[psutil.Process]:
    """Return the children that are still there when a kill has had time to arrive."""
    until = time.monotonic() + 5
    while (found := [one for one in psutil.process_iter() if is_sleeping(one)]) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def is_sleeping(process: psutil.Process) -> bool:
    """Say whether this is the child that the stub leaves behind."""
    try:
        mine: bool = process.environ().get("SEKRON_EDGE_CACHE") == os.environ["SEKRON_EDGE_CACHE"]
        return mine and process.cmdline() == ["sleep", "1000"] and bool(process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return False
