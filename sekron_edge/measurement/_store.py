"""Every measurement, and every timing of a calibration, in SQLite: of what, on what, when, in which state of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sekron_edge import files
from sekron_edge.documents import parsed_record
from sekron_edge.errors import ConfigError, DeviceError
from sekron_edge.measurement._records import Environment, Measurement
from sekron_edge.primitives import Primitive
from sekron_edge.settings import described

_TIMINGS = """
CREATE TABLE IF NOT EXISTS timings (
    calibration INTEGER NOT NULL REFERENCES calibrations(id), kind TEXT NOT NULL, primitive TEXT NOT NULL,
    median_ms REAL NOT NULL, iqr_ms REAL, min_ms REAL NOT NULL, runs INTEGER NOT NULL);
"""
_TABLES = f"""
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY, measured_at TEXT NOT NULL, device TEXT NOT NULL, artifact_name TEXT NOT NULL,
    artifact_sha256 TEXT NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calibrations (
    id INTEGER PRIMARY KEY, measured_at TEXT NOT NULL, runtime TEXT NOT NULL, runtime_version TEXT NOT NULL,
    precision TEXT NOT NULL, threads INTEGER NOT NULL, environment TEXT NOT NULL);
{_TIMINGS}"""
# Earlier files refused calibrations without quantiles, which devices that state means alone do not have.
_REFUSES_MEANS = "SELECT 1 FROM pragma_table_info('timings') WHERE name = 'iqr_ms' AND \"notnull\""
_TAKE_MEANS = f"""
BEGIN IMMEDIATE;
ALTER TABLE timings RENAME TO earlier_timings;
{_TIMINGS}
INSERT INTO timings SELECT * FROM earlier_timings;
DROP TABLE earlier_timings;
COMMIT;
"""  # noqa: S608
_NAME = "measurements.sqlite"
_REMEDY = "it was changed, or is of another release: remove it with SQLite, or move the file away"
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


class Kept(BaseModel):
    """A measurement by its number in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int
    measurement: Measurement


class MeasurementStore:
    """A database file; several processes may write to it.

    Args:
        path: Made, with its folder, if absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> MeasurementStore:
        """Return the store in the cache, where measurements land."""
        return cls(files.cache_folder() / _NAME)

    def keep(self, measurement: Measurement) -> int:
        """Keep a measurement; return its number.

        Raises:
            DeviceError: If it is of an emulated device, or the file cannot be written.
        """
        if measurement.emulated:
            raise DeviceError(f"{measurement.device} is emulated: its times say nothing of a device, and are not kept")
        row = (
            measurement.measured_at.isoformat(),
            measurement.device,
            measurement.artifact_name,
            measurement.artifact_sha256,
            measurement.model_dump_json(),
        )
        columns = "measured_at, device, artifact_name, artifact_sha256, content"
        with self._open() as database:
            number = database.execute(f"INSERT INTO measurements ({columns}) VALUES (?, ?, ?, ?, ?)", row).lastrowid  # noqa: S608
        assert number is not None
        return number

    def measurements(
        self, *, device: str | None = None, artifact: str | None = None, since: datetime | None = None
    ) -> list[Kept]:
        """Return what was measured, the newest last.

        Args:
            device: Only there.
            artifact: Only of files of this name, or of the hash that begins so.
            since: Only later.

        Raises:
            ConfigError: If one was changed since; names it.
            DeviceError: If the file cannot be read.
        """
        query = """
            SELECT id, content FROM measurements
            WHERE (:device IS NULL OR device = :device)
            AND (:artifact IS NULL OR :artifact IN (artifact_name, substr(artifact_sha256, 1, length(:artifact))))
            ORDER BY id"""
        with self._open() as database:
            rows = database.execute(query, {"device": device, "artifact": artifact}).fetchall()
        measurements = [self._kept(row) for row in rows]
        return [kept for kept in measurements if since is None or kept.measurement.measured_at >= since]

    def measurement(self, number: int) -> Measurement:
        """Return the measurement of a number.

        Raises:
            ConfigError: If there is none, or it was changed since.
        """
        with self._open() as database:
            row = database.execute("SELECT id, content FROM measurements WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise ConfigError(f"there is no measurement {number}; `sekron-edge measurements list` shows those that are")
        return self._kept(row).measurement

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
        """Return what was calibrated, the newest last.

        Raises:
            ConfigError: If a record was changed since; names it.
            DeviceError: If the file cannot be read.
        """
        query = """
            SELECT id, measured_at, runtime, runtime_version, precision, threads, environment, COUNT(*) AS timings
            FROM calibrations JOIN timings ON calibration = id GROUP BY id ORDER BY id"""
        with self._open() as database:
            rows = database.execute(query).fetchall()
        return [self._calibration(dict(row)) for row in rows]

    def medians(self, calibration: int) -> dict[Primitive, float]:
        """Return the median time of each primitive of a calibration, in milliseconds.

        Raises:
            ConfigError: If a record was changed since; names it.
            DeviceError: If the file cannot be read.
        """
        query = "SELECT kind, primitive, median_ms FROM timings WHERE calibration = ?"
        with self._open() as database:
            rows = database.execute(query, (calibration,)).fetchall()
        where = f"calibration {calibration} of {self.path}"
        return dict(_timing(row, where) for row in rows)

    def _kept(self, row: sqlite3.Row) -> Kept:
        where = f"measurement {row['id']} of {self.path}"
        return Kept(id=row["id"], measurement=parsed_record(row["content"], Measurement, where, ConfigError, _REMEDY))

    def _calibration(self, row: dict[str, Any]) -> Calibration:
        where = f"calibration {row['id']} of {self.path}"
        environment = parsed_record(row["environment"], Environment, where, ConfigError, _REMEDY)
        try:
            return Calibration.model_validate({**row, "environment": environment})
        except ValidationError as error:
            raise ConfigError(f"{where} cannot be read: {described(error, Calibration)}; {_REMEDY}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=_WAIT_S)
            try:
                database.row_factory = sqlite3.Row
                database.executescript(_TABLES)
                if database.execute(_REFUSES_MEANS).fetchone():
                    database.executescript(_TAKE_MEANS)
                with database:
                    yield database
            finally:
                database.close()
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # sqlite3 decodes what a damaged file says
            raise DeviceError(f"measurements cannot be kept in {self.path}: {error}") from error


def _timing(row: sqlite3.Row, where: str) -> tuple[Primitive, float]:
    kind = _KINDS.get(row["kind"])
    if kind is None or not isinstance(row["median_ms"], float):
        raise ConfigError(f"{where} cannot be read: it has a timing that no release wrote; {_REMEDY}")
    return parsed_record(row["primitive"], kind, where, ConfigError, _REMEDY), row["median_ms"]


_KINDS: dict[str, TypeAdapter[Primitive]] = {kind.__name__: TypeAdapter(kind) for kind in get_args(Primitive)}
