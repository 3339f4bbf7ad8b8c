"""Several processes write to one store of measurements, which an earlier release has made."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import sqlite3
from pathlib import Path

from sekron_edge.measurement import MeasurementStore, _store
from sekron_edge.primitives import Linear
from tests.measurement.test_fleet import a_measurement

WRITERS, EACH = 8, 40


def write(path: Path, writer: int) -> None:
    """Keep measurements that say whose they are, and a calibration without quantiles, which the old tables refuse."""
    store = MeasurementStore(path)
    for number in range(EACH):
        store.keep(a_measurement(artifact_name=f"{writer}-{number}"))
    store.add("fp32", writer + 1, [Linear(1, 8, 8)] * EACH, [a_measurement(iqr_ms=None)] * EACH)


def test_eight_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "measurements.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(re.sub(r"iqr_ms REAL,", "iqr_ms REAL NOT NULL,", _store._TABLES))
    processes = [multiprocessing.get_context("fork").Process(target=write, args=(path, one)) for one in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    store = MeasurementStore(path)
    kept = store.measurements()
    names = sorted(one.measurement.artifact_name for one in kept)
    assert names == sorted(f"{writer}-{number}" for writer in range(WRITERS) for number in range(EACH))
    assert [one.id for one in kept] == list(range(1, WRITERS * EACH + 1))
    assert sorted((one.threads, one.timings) for one in store.calibrations()) == [(w + 1, EACH) for w in range(WRITERS)]
