"""Two hundred faults over ssh and adb: none outlasts its time, none leaves a process or a file, none leaves a number.

Which fault comes when is drawn from a seed. Where a fault does not break the measurement, the measurement is right.
"""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sekron_edge.devices import MeasurementStore, open_device
from sekron_edge.errors import DeviceError, VerificationError
from tests.devices.phones import Phone

OVER_SSH = 150
OVER_ADB = 50
TIMEOUT_S = 20.0
# What may pass beside: until a runner is killed, and the attendant, or the phone's guard, has cleaned up.
GRACE_S = 40.0
SSH_FAULTS = (
    *["crash", "child", "exit", "memory", "garbage", "runtime", "version", "clock", "backwards", "wrong", "flood"],
    *["cut", "old", "absent", "foreign", "quota", "noise", "refused", "stranger", "unplugged", "hang"],
    *["lasting", "greeting"],
)
HARMLESS = ("lasting", "greeting")
ADB_FAULTS = {
    "crash": "kill -SEGV $$",
    "killed": "kill -KILL $$",
    "exit": "exit 3",
    "foreign": "exit 126",
    "garbage": "head -c 999 /dev/urandom; exit 0",
    "silent": "exit 0",
    "clock": "echo 'count=99'; echo 'Inference (avg): 9e15'; exit 0",
    "orphan": "sleep 1000 >/dev/null 2>&1 & exit 1",
}


@pytest.mark.slow
def test_150_faults_over_ssh(at_board, doubler):
    names = [fault for fault in SSH_FAULTS for _ in range(-(-OVER_SSH // len(SSH_FAULTS)))]
    random.Random(0).shuffle(names)
    faults = list(enumerate(names[:OVER_SSH]))
    (at_board.folder / "nobody").write_text("")
    at_board.write(**{f"n{index}": settings(at_board, index, fault) for index, fault in faults})
    before = at_board.files()
    inputs = np.ones((1, 2), np.float32)

    def judge(outputs):
        if not np.array_equal(outputs[0], 2 * inputs):
            raise VerificationError("wrong outputs")
        return "twice"

    def measured(index, fault):
        started = time.monotonic()
        device = open_device(f"ssh:n{index}")
        done = threading.Event()
        if fault == "unplugged":
            threading.Thread(target=unplug, args=(at_board, f"cache {index}", done), daemon=True).start()
        failure = ""
        try:
            allowed = 2.0 if fault == "hang" else TIMEOUT_S
            found = device.measure(doubler, [inputs], runs=4, warmup=1, timeout_s=allowed, judge=judge)
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


def settings(board, index, fault):
    changes = {"cache": str(board.home / f"cache {index}")}
    if fault == "refused":
        changes["port"] = 1
    elif fault == "stranger":
        config = board.folder / "unknown_config"
        config.write_text(board.ssh_config.read_text().replace(str(board.known), str(board.folder / "nobody")))
        changes["ssh_config"] = str(config)
    return board.settings({"unplugged": "hang"}.get(fault, fault), **changes)


def unplug(board, cache, done):
    """Cut the connection of the job in this cache folder once it runs."""
    while not done.wait(0.02):
        if any((board.home / cache).glob("sekron-edge-job-*")):
            board.unplug(cache)


@pytest.mark.slow
def test_50_faults_over_adb(at_board, doubler, monkeypatch, tmp_path):
    phone = Phone(tmp_path)
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", phone.environment["ANDROID_ADB_SERVER_PORT"])
    names = [fault for fault in (*ADB_FAULTS, "none") for _ in range(-(-OVER_ADB // (len(ADB_FAULTS) + 1)))]
    random.Random(1).shuffle(names)
    tables = {
        f"n{index}": phone.settings(ADB_FAULTS.get(fault, ":"), cache=f"{phone.above}/{index}")
        for index, fault in enumerate(names[:OVER_ADB])
    }
    for index in range(OVER_ADB):
        (phone.above / str(index)).mkdir()
    at_board.write(**tables)

    def measured(index, fault):
        started = time.monotonic()
        failure = ""
        try:
            found = open_device(f"adb:n{index}").measure(doubler, runs=10, timeout_s=TIMEOUT_S)
        except DeviceError as error:
            failure = str(error)
        assert time.monotonic() - started < TIMEOUT_S + GRACE_S, fault
        assert (failure == "") == (fault == "none"), (fault, failure)
        assert f"adb:n{index}" in failure or found.median_ms == pytest.approx(8.02025)

    try:
        with ThreadPoolExecutor(3) as pool:
            for one in [pool.submit(measured, *fault) for fault in enumerate(names[:OVER_ADB])]:
                one.result()
        phone.wait_for_silence()
        assert not [path for path in phone.above.rglob("*") if path.parent != phone.above]
        kept = {one.measurement.device for one in MeasurementStore.default().measurements()}
        assert kept == {f"adb:n{index}" for index, fault in enumerate(names[:OVER_ADB]) if fault == "none"}
    finally:
        phone.stop()
