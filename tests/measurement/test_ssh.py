"""Boards over SSH: the system's client, a real sshd, and everything that can go wrong between them."""

import fcntl
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, device_runtime, export
from sekron_edge.errors import ConfigError, DeviceError, UnreachableError
from sekron_edge.latency import calibrate
from sekron_edge.measurement import Conditions, Measurement, MeasurementStore, open_device
from sekron_edge.measurement._device import RUNNER
from sekron_edge.measurement.transports import ssh
from tests.measurement.boards import Board
from tests.narrowing import present


def measured(artifact: Artifact, fault: str = "stub", board: Board | None = None, **settings: Any) -> Measurement:
    if board is not None:
        board.write(board=board.settings(fault, **settings))
    return open_device("ssh:board").measure(artifact, Conditions(runs=4, warmup=1, timeout_s=30))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_a_board_runs_what_ships_and_its_outputs_come_back(format: str, at_board: Board, tmp_path: Path) -> None:
    at_board.write(board=at_board.settings("real"))
    model, inputs = nn.Conv2d(3, 4, 3), torch.randn(3, 3, 8, 8)
    artifact = export(model, (inputs[:1],), format=format, out=tmp_path, name='it\'s a "model"')
    expected = model(inputs).detach().numpy()

    def check_outputs(outputs: Sequence[Array]) -> str:
        np.testing.assert_allclose(outputs[0], expected, atol=1e-5)
        return "agrees"

    device = open_device("ssh:board")
    found = device.measure(
        artifact,
        Conditions(runs=8, threads=1, affinity=(0,), operators=True),
        inputs=[inputs.numpy()],
        check_outputs=check_outputs,
    )
    assert (found.device, found.verified, found.runtime, found.affinity) == ("ssh:board", "agrees", format, (0,))
    assert found.artifact_sha256 == artifact.sha256
    assert found.environment.cores == 1
    kinds = [operator.kind for operator in found.operators]
    assert kinds == [] if format == "litert" else any("Convolution" in kind for kind in kinds)
    assert all(operator.milliseconds >= 0 for operator in found.operators)
    assert found.peak_memory_bytes is None or found.peak_memory_bytes > 0


@pytest.mark.slow
def test_a_board_is_calibrated(at_board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at_board.write(board=at_board.settings("real"))
    before = at_board.files()
    store = MeasurementStore(tmp_path / "measurements.sqlite")
    model = calibrate("litert", store=store, device=open_device("ssh:board"))
    assert "measured on" in model.source
    assert "clock" not in model.source
    (kept,) = store.calibrations()
    assert kept.timings > 200
    assert {Path(name).name for name in set(at_board.files()) - set(before)} <= {
        at_board.cache.name,
        *(f"sekron-edge-file-{files.sha256(sent)}" for sent in (RUNNER, present(device_runtime("litert")).source)),
    }
    at_board.write(board=at_board.settings("real", emulated=True))
    with pytest.raises(DeviceError, match="emulated"):
        calibrate("litert", store=store, device=open_device("ssh:board"))
    assert len(store.calibrations()) == 1


def test_files_are_sent_once_and_the_jobs_folder_goes(at_board: Board, doubler: Artifact) -> None:
    at_board.cache.mkdir(exist_ok=True)
    stranger = at_board.cache / "job-1"
    stranger.write_text("not ours")
    measured(doubler, board=at_board)
    assert stranger.read_text() == "not ours"
    stranger.unlink()
    kept = at_board.files()
    blobs = [name for name in kept if name == f"{at_board.cache.name}/sekron-edge-file-{doubler.sha256}"]
    assert len(blobs) == 1
    assert not [name for name in kept if "edge-job-" in name]
    before = (at_board.home / blobs[0]).stat().st_ino
    measured(doubler)
    assert at_board.files() == kept
    assert (at_board.home / blobs[0]).stat().st_ino == before


FAULTS = {
    "runtime": "wrong ELF class.*install the runtime",
    "version": "builtin opcode 'CONV_2D' version '99'.*older than the exporter",
    "crash": "SIGSEGV.*damaged",
    "child": "SIGSEGV",
    "exit": "measuring .* failed",
    "memory": "MemoryError.*fit the device's memory",
    "garbage": "is no answer: .*garbage",
    "flood": "more than an answer can be",
    "clock": "clock jumped",
    "backwards": "clock jumped",
    "noise": "came instead of an answer",
    "cut": "Python did not start",
    "old": "must be 3.8 or later.*SyntaxError",
    "absent": "no such Python",
    "foreign": "for another processor",
    "quota": "File too large",
    "full": "No space left on device; free some space there",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_and_leaves_nothing(fault: str, at_board: Board, doubler: Artifact) -> None:
    if fault == "full" and subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("a file system of a test's own needs user namespaces, which are forbidden here")
    at_board.write(board=at_board.settings(fault, cache=str(at_board.home / fault / "cache")))
    before = at_board.files()
    with pytest.raises(DeviceError, match=f"(?s)ssh:board: .*{FAULTS[fault]}"):
        open_device("ssh:board").measure(doubler, Conditions(runs=4, timeout_s=30))
    at_board.wait_for_silence()
    assert at_board.files() == before


@pytest.mark.parametrize("fault", ["hang", "silent"])
def test_what_hangs_is_ended_in_time(fault: str, at_board: Board, doubler: Artifact) -> None:
    at_board.write(board=at_board.settings(fault, cache=str(at_board.home / "new")))
    before = at_board.files()
    started = time.monotonic()
    with pytest.raises(DeviceError, match="longer than 3 s"):
        open_device("ssh:board").measure(doubler, Conditions(runs=4, timeout_s=3))
    assert time.monotonic() - started < 20
    at_board.wait_for_silence()
    assert at_board.files() == before


def test_a_child_that_outlives_the_runtime_is_no_reason_to_wait(at_board: Board, doubler: Artifact) -> None:
    assert measured(doubler, "lasting", at_board).runs >= 4


def test_what_a_shell_says_before_is_passed_over(at_board: Board, doubler: Artifact) -> None:
    assert measured(doubler, "greeting", at_board).runs >= 4


def test_a_board_that_vanishes_while_it_measures(at_board: Board, doubler: Artifact) -> None:
    at_board.write(board=at_board.settings("hang", cache=str(at_board.home / "new")))
    before = at_board.files()
    failed = []

    def measure() -> None:
        try:
            open_device("ssh:board").measure(doubler, Conditions(runs=4, timeout_s=60))
        except UnreachableError as error:
            failed.append(str(error))

    thread = threading.Thread(target=measure)
    thread.start()
    while thread.is_alive() and not [name for name in at_board.files() if "edge-job-" in name]:
        time.sleep(0.02)
    at_board.unplug()
    thread.join(timeout=30)
    assert "connection was lost" in failed[0]
    at_board.wait_for_silence()
    assert at_board.files() == before


@pytest.mark.slow
def test_a_board_that_falls_silent_is_noticed_long_before_time_is_up(
    at_board: Board, doubler: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ssh._OPTIONS, "ServerAliveInterval", "1")  # of three that are missed
    at_board.write(board=at_board.settings("hang", cache=str(at_board.home / "new")))
    before = at_board.files()
    failed = []

    def measure() -> None:
        try:
            open_device("ssh:board").measure(doubler, Conditions(runs=4, timeout_s=300))
        except UnreachableError as error:
            failed.append(str(error))

    thread = threading.Thread(target=measure)
    thread.start()
    while thread.is_alive() and not [name for name in at_board.files() if "edge-job-" in name]:
        time.sleep(0.02)
    with at_board.silent():
        thread.join(timeout=60)
    assert "connection was lost" in failed[0]
    at_board.wait_for_silence()
    assert at_board.files() == before


def test_a_board_that_is_busy_or_away_may_be_tried_again(at_board: Board, doubler: Artifact) -> None:
    at_board.cache.mkdir(exist_ok=True)
    busy = os.open(at_board.cache, os.O_RDONLY)
    fcntl.flock(busy, fcntl.LOCK_EX)
    with pytest.raises(UnreachableError, match="another measurement runs there"):
        measured(doubler, board=at_board)
    os.close(busy)
    assert measured(doubler).runs >= 4
    at_board.write(board=at_board.settings(port=1))
    with pytest.raises(UnreachableError, match="cannot be reached"):
        measured(doubler)


def test_no_key_is_taken_on_trust(at_board: Board, doubler: Artifact) -> None:
    try:
        at_board.know(None)
        with pytest.raises(DeviceError, match="its key is unknown"):
            measured(doubler)
        assert at_board.known.read_text() == ""
        at_board.know("stranger")
        with pytest.raises(DeviceError, match="not the known one"):
            measured(doubler)
    finally:
        at_board.know("host")
    try:
        at_board.login("stranger")
        with pytest.raises(DeviceError, match="lets nobody in"):
            measured(doubler)
    finally:
        at_board.login("user")


def test_what_does_not_fit_the_board_is_said_before(at_board: Board, doubler: Artifact) -> None:
    at_board.write(board=at_board.settings("stub"))
    with pytest.raises(DeviceError, match=r"bound to the cores \[4095\]"):
        open_device("ssh:board").measure(doubler, Conditions(affinity=(4095,), timeout_s=30))
    at_board.write(board=at_board.settings(host="-oProxyCommand=touch x"))
    with pytest.raises(DeviceError, match="is no host"):
        measured(doubler)
    with pytest.raises(ConfigError, match="no device 'ssh:'"):
        open_device("ssh:")
