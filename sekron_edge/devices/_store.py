"""Every timing of a calibration, kept in SQLite: what was measured, on what, when, in which state of the machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter

from sekron_edge.devices._measurement import Environment, Measurement
from sekron_edge.errors import DeviceError
from sekron_edge.primitives import Primitive

_TABLES = """
CREATE TABLE IF NOT EXISTS calibrations (
    id INTEGER PRIMARY KEY, measured_at TEXT NOT NULL, runtime TEXT NOT NULL, runtime_version TEXT NOT NULL,
    precision TEXT NOT NULL, threads INTEGER NOT NULL, environment TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS timings (
    calibration INTEGER NOT NULL REFERENCES calibrations(id), kind TEXT NOT NULL, primitive TEXT NOT NULL,
    median_ms REAL NOT NULL, iqr_ms REAL NOT NULL, min_ms REAL NOT NULL, runs INTEGER NOT NULL);
"""
_WAIT_S = 60.0  # for another writer


class Calibration(BaseModel):
    """One calibration that is kept: with what, when, where, and how many operations were timed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    measured_at: datetime
    runtime: str
    runtime_version: str
    precision: str
    threads: int
    environment: Environment
    timings: int


class MeasurementStore:
    """A database file; several processes may write to it.

    Args:
        path: Made, with its folder, if absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(
        self, precision: str, threads: int, primitives: Sequence[Primitive], measured: Sequence[Measurement]
    ) -> int:
        """Keep one calibration, whole or not at all; return its number.

        Raises:
            DeviceError: If the file cannot be written, or is no such database.
        """
        first = measured[0]
        head = (
            first.measured_at.isoformat(),
            first.runtime,
            first.runtime_version,
            precision,
            threads,
            first.environment.model_dump_json(),
        )
        with self._open() as database:
            columns = "measured_at, runtime, runtime_version, precision, threads, environment"
            number = database.execute(f"INSERT INTO calibrations ({columns}) VALUES (?, ?, ?, ?, ?, ?)", head).lastrowid  # noqa: S608
            assert number is not None
            database.executemany(
                "INSERT INTO timings VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (number, type(p).__name__, json.dumps(asdict(p)), m.median_ms, m.iqr_ms, m.min_ms, m.runs)
                    for p, m in zip(primitives, measured, strict=True)
                ],
            )
        return number

    def calibrations(self) -> list[Calibration]:
        """Return what was calibrated, the newest last."""
        query = """
            SELECT id, measured_at, runtime, runtime_version, precision, threads, environment, COUNT(*) AS timings
            FROM calibrations JOIN timings ON calibration = id GROUP BY id ORDER BY id"""
        with self._open() as database:
            rows = database.execute(query).fetchall()
        return [
            Calibration.model_validate({**row, "environment": Environment.model_validate_json(row["environment"])})
            for row in map(dict, rows)
        ]

    def medians(self, calibration: int) -> dict[Primitive, float]:
        """Return the median time of each primitive of a calibration, in milliseconds."""
        query = "SELECT kind, primitive, median_ms FROM timings WHERE calibration = ?"
        with self._open() as database:
            rows = database.execute(query, (calibration,)).fetchall()
        return {_KINDS[row["kind"]].validate_json(row["primitive"]): row["median_ms"] for row in rows}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=_WAIT_S)
            try:
                database.row_factory = sqlite3.Row
                database.executescript(_TABLES)
                with database:
                    yield database
            finally:
                database.close()
        except (OSError, sqlite3.Error) as error:
            raise DeviceError(f"measurements cannot be kept in {self.path}: {error}") from error


_KINDS: dict[str, TypeAdapter[Primitive]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Primitive)}
