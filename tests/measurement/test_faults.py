"""Two hundred faults over ssh and adb: none outlasts its time, none leaves a process or a file, none leaves a number.

Which fault comes when is drawn from a seed. Between them are measurements that nothing breaks: these are right, and
are not counted.
"""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import DeviceError, VerificationError
from sekron_edge.measurement import Conditions, MeasurementStore, open_device
from tests.measurement.boards import Board
from tests.measurement.phones import Phone

OVER_SSH = 66
OVER_ADB = 50
TIMEOUT_S = 20.0
# What may pass beside: until a runner is killed, and the agent, or the phone's guard, has cleaned up.
GRACE_S = 40.0
SSH_FAULTS = (
    *["crash", "child", "exit", "memory", "garbage", "runtime", "version", "clock", "backwards", "wrong", "flood"],
    *["cut", "old", "absent", "foreign", "quota", "noise", "refused", "stranger", "unplugged", "hang", "silent"],
)
# What is odd there, and breaks nothing: a child that outlives the runtime, a shell that greets.
HARMLESS = ("lasting", "greeting", "stub")
HARMLESS_OVER_SSH, HARMLESS_OVER_ADB = 12, 6
ADB_FAULTS = {
    "crash": "kill -SEGV $$",
    "killed": "kill -KILL $$",
    "exit": "exit 3",
    "foreign": "exit 126",
    "garbage": "head -c 999 /dev/urandom; exit 0",
    "silent": "exit 0",
    "clock": "echo 'count=99'; echo 'Inference (avg): 9e15'; exit 0",
    "backwards": "echo 'count=99'; echo 'Inference (avg): 0'; exit 0",
    "orphan": "sleep 1000 >/dev/null 2>&1 & exit 1",
    "hang": "sleep 1000",
}


def drawn(faults: Sequence[str], count: int, harmless: Sequence[str], seed: int) -> list[tuple[int, str]]:
    """Return the numbered faults, every kind about as often, with what is harmless between them."""
    found = [fault for _ in range(-(-count // len(faults))) for fault in faults][:count] + list(harmless)
    random.Random(seed).shuffle(found)
    return list(enumerate(found))


@pytest.mark.slow
def test_66_faults_over_ssh(at_board: Board, doubler: Artifact) -> None:
    faults = drawn(SSH_FAULTS, OVER_SSH, HARMLESS * (HARMLESS_OVER_SSH // len(HARMLESS)), seed=0)
    assert len([fault for _, fault in faults if fault not in HARMLESS]) == OVER_SSH
    (at_board.folder / "nobody").write_text("")
    at_board.write(**{f"n{index}": settings(at_board, index, fault) for index, fault in faults})
    before = at_board.files()
    inputs = np.ones((1, 2), np.float32)

    def check_outputs(outputs: Sequence[Array]) -> str:
        if not np.array_equal(outputs[0], 2 * inputs):
            raise VerificationError("wrong outputs")
        return "twice"

    def measured(index: int, fault: str) -> None:
        started = time.monotonic()
        device = open_device(f"ssh:n{index}")
        done = threading.Event()
        if fault == "unplugged":
            threading.Thread(target=unplug, args=(at_board, f"cache {index}", done), daemon=True).start()
        failure = ""
        try:
            allowed = 2.0 if fault in ("hang", "silent") else TIMEOUT_S
            found = device.measure(
                doubler, Conditions(runs=4, warmup=1, timeout_s=allowed), inputs=[inputs], check_outputs=check_outputs
            )
        except (DeviceError, VerificationError) as error:
            failure = str(error)
        finally:
            done.set()
        assert time.monotonic() - started < TIMEOUT_S + GRACE_S, fault
        assert (failure == "") == (fault in HARMLESS), (fault, failure)
        assert device.name in failure or failure in ("", "wrong outputs")
        assert failure or 0.4 < found.median_ms < 500

    with ThreadPoolExecutor(3) as pool:
        for one in [pool.submit(measured, *fault) for fault in faults]:
            one.result()
    at_board.wait_for_silence()
    left = sorted(set(at_board.files()) - set(before))
    kept_by = {name.split("/")[0] for name in left}
    assert kept_by <= {f"cache {index}" for index, fault in faults if fault in (*HARMLESS, "wrong")}
    assert not [name for name in left if "job-" in name]
    kept = MeasurementStore.default().measurements()
    assert sorted(one.measurement.device for one in kept) == sorted(f"ssh:n{i}" for i, f in faults if f in HARMLESS)
    assert all(0.4 < one.measurement.median_ms < 500 for one in kept)


def settings(board: Board, index: int, fault: str) -> dict[str, Any]:
    changes: dict[str, Any] = {"cache": str(board.home / f"cache {index}")}
    if fault == "refused":
        changes["port"] = 1
    elif fault == "stranger":
        config = board.folder / "unknown_config"
        config.write_text(board.ssh_config.read_text().replace(str(board.known), str(board.folder / "nobody")))
        changes["ssh_config"] = str(config)
    return board.settings({"unplugged": "hang"}.get(fault, fault), **changes)


def unplug(board: Board, cache: str, done: threading.Event) -> None:
    """Cut the connection of the job in this cache folder once it runs."""
    while not done.wait(0.02):
        if any((board.home / cache).glob("sekron-edge-job-*")):
            board.unplug(cache)


@pytest.mark.slow
def test_50_faults_over_adb(
    at_board: Board, doubler: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phone = Phone(tmp_path)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", phone.environment["ANDROID_ADB_SERVER_PORT"])
    faults = drawn((*ADB_FAULTS, "full", "unplugged"), OVER_ADB, ["none"] * HARMLESS_OVER_ADB, seed=1)
    assert len([fault for _, fault in faults if fault != "none"]) == OVER_ADB
    lines = {**ADB_FAULTS, "unplugged": ADB_FAULTS["hang"]}
    at_board.write(
        **{
            f"n{index}": phone.settings(lines.get(fault, ":"), cache=f"{phone.above}/{index}")
            for index, fault in faults
        }
    )
    for index, fault in faults:
        (phone.above / str(index)).mkdir()
        if fault == "full":
            (phone.above / str(index) / "limit").write_text("1000")

    def measured(index: int, fault: str) -> None:
        started = time.monotonic()
        failure = ""
        try:
            allowed = 3.0 if fault in ("hang", "unplugged") else TIMEOUT_S
            found = open_device(f"adb:n{index}").measure(doubler, Conditions(runs=10, timeout_s=allowed))
        except DeviceError as error:
            failure = str(error)
        assert time.monotonic() - started < TIMEOUT_S + GRACE_S, fault
        assert (failure == "") == (fault == "none"), (fault, failure)
        assert f"adb:n{index}" in failure or found.median_ms == pytest.approx(8.02025)

    try:
        with ThreadPoolExecutor(3) as pool:
            for one in [pool.submit(measured, *fault) for fault in faults if fault[1] != "unplugged"]:
                one.result()
        for index, fault in faults:  # one by one: every connection is cut
            if fault == "unplugged":
                cut = threading.Thread(target=pull_the_cable, args=(phone, index))
                cut.start()
                measured(index, fault)
                cut.join()
                phone.plug_in()
        phone.wait_for_silence()
        left = [path for path in phone.above.rglob("*") if path.parent != phone.above and path.name != "limit"]
        assert not left
        kept = [one.measurement.device for one in MeasurementStore.default().measurements()]
        assert sorted(kept) == sorted(f"adb:n{index}" for index, fault in faults if fault == "none")
    finally:
        phone.stop()


def pull_the_cable(phone: Phone, index: int) -> None:
    """Cut the phone's connections once the job of this number runs."""
    end = time.monotonic() + TIMEOUT_S
    while not (phone.above / str(index) / "sekron-edge" / "group").exists():
        assert time.monotonic() < end, "the job never ran"
        time.sleep(0.02)
    phone.unplug()
