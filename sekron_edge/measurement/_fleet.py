"""Several devices at once: each at its own pace, what one of them loses is not lost for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import ConfigError, DeviceError, UnreachableError, UnsupportedError, VerificationError
from sekron_edge.measurement._device import Device, Judge
from sekron_edge.measurement._records import ComputeUnits, Footprint, Measurement
from sekron_edge.measurement._store import MeasurementStore

_RECENT = timedelta(days=1)
_MOST_BACKOFF_S = 30.0

FailureKind = Literal["device", "unsupported", "verification"]


class Failure(BaseModel):
    """What was not measured, and why: a device that failed, one that is none for such artifacts, or wrong outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_name: str
    device: str
    kind: FailureKind
    message: str


class MeasurementReport(BaseModel):
    """Measurements, what could not be measured, and what microcontrollers need.

    ``docs/schemas/measurements.json`` is its JSON schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    measurements: tuple[Measurement, ...]
    failures: tuple[Failure, ...] = ()
    footprints: tuple[Footprint, ...] = ()


_Column = list[Measurement | Failure]


@dataclass(frozen=True)
class Probe:
    """An artifact to measure; with inputs in PyTorch's layout, and a judge of what it makes of them on the device."""

    artifact: Artifact
    inputs: tuple[Array, ...] | None = None
    judge: Judge | None = None


@dataclass(frozen=True)
class Conditions:
    """How artifacts are measured, on every device alike.

    Attributes:
        runs: Least number of timed runs.
        threads: That the runtime may use.
        affinity: Cores to run on; as the system likes if empty.
        compute_units: That Core ML may use.
        operators: Whether to time single operators too, where the runtime can.
        timeout_s: For one artifact on one device.
        retries: How often a device is tried again that is away or busy, or was lost.
        backoff_s: Before the first of these; twice as long before each next one.
        resume: Take what was measured under the same conditions since yesterday from the store.
    """

    runs: int = 50
    threads: int = 1
    affinity: tuple[int, ...] = ()
    compute_units: ComputeUnits = "ALL"
    operators: bool = False
    timeout_s: float = 600.0
    retries: int = 3
    backoff_s: float = 2.0
    resume: bool = False


def measure_fleet(
    probes: Sequence[Probe],
    devices: Sequence[Device],
    conditions: Conditions,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> MeasurementReport:
    """Measure every artifact on every device: devices in parallel, the artifacts of one after each other.

    A device that stays unreachable gets no further artifacts. The order of what is returned is that of the artifacts,
    then of the devices.

    Args:
        probes: What to measure.
        devices: Where.
        conditions: How.
        tell: Is told of each thing done, by several threads.

    Raises:
        ConfigError: If a device is named twice.
    """
    names = [device.name for device in devices]
    if len(set(names)) < len(names):
        raise ConfigError(f"each device can be named once; got {', '.join(names)}")
    stop = threading.Event()
    tours = [_Tour(device, conditions, tell, stop) for device in devices]
    columns = _at_once([partial(tour.measure, probes) for tour in tours], stop)
    found = [column[index] for index in range(len(probes)) for column in columns]
    return MeasurementReport(
        measurements=tuple(one for one in found if isinstance(one, Measurement)),
        failures=tuple(one for one in found if isinstance(one, Failure)),
    )


def _at_once(works: Sequence[Callable[[], _Column]], stop: threading.Event) -> list[_Column]:
    """Do all works, each in a thread; an interruption waits for none of them, and what they run ends with them."""
    running: list[Future[_Column]] = [Future() for _ in works]
    for work, future in zip(works, running, strict=True):
        threading.Thread(target=_do, args=(work, future), daemon=True).start()
    try:
        return [future.result() for future in running]
    finally:
        stop.set()


def _do(work: Callable[[], _Column], future: Future[_Column]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
        future.set_exception(error)


class _Tour:
    """One device's way through all artifacts."""

    def __init__(
        self, device: Device, conditions: Conditions, tell: Callable[[str], None], stop: threading.Event
    ) -> None:
        self._device = device
        self._conditions = conditions
        self._tell = tell
        self._stop = stop
        self._lost: str | None = None

    def measure(self, probes: Sequence[Probe]) -> _Column:
        """Measure what can be measured; an error of one artifact is its own."""
        recent = self._recent() if self._conditions.resume else []
        return [self._known(probe, recent) or self._try(probe) for probe in probes]

    def _try(self, probe: Probe) -> Measurement | Failure:
        name = probe.artifact.path.name
        if self._stop.is_set() or self._lost is not None:
            return self._failure(name, "device", f"not tried any more: {self._lost or 'stopped'}")
        try:
            found = self._measure(probe)
        except UnreachableError as error:
            self._lost = str(error)
            return self._failure(name, "device", str(error))
        except UnsupportedError as error:
            return self._failure(name, "unsupported", str(error))
        except DeviceError as error:
            return self._failure(name, "device", str(error))
        except VerificationError as error:
            return self._failure(name, "verification", str(error))
        self._tell(f"{name} on {self._device.name}: {found.median_ms:.4g} ms")
        return found

    def _measure(self, probe: Probe) -> Measurement:
        asked = self._conditions
        pause = asked.backoff_s
        for left in reversed(range(asked.retries + 1)):
            try:
                return self._device.measure(
                    probe.artifact,
                    probe.inputs,
                    runs=asked.runs,
                    threads=asked.threads,
                    affinity=asked.affinity,
                    compute_units=asked.compute_units,
                    operators=asked.operators,
                    timeout_s=asked.timeout_s,
                    judge=probe.judge,
                )
            except UnreachableError as error:
                if not left or self._stop.is_set():
                    raise
                first = str(error).partition("\n")[0]
                self._tell(f"{first}; trying again in {pause:g} s")
                if self._stop.wait(pause):
                    raise
                pause = min(2 * pause, _MOST_BACKOFF_S)
        raise AssertionError("retries are not negative")

    def _failure(self, artifact_name: str, kind: FailureKind, message: str) -> Failure:
        first = message.partition("\n")[0]
        self._tell(f"not measured: {first}")
        return Failure(artifact_name=artifact_name, device=self._device.name, kind=kind, message=message)

    def _recent(self) -> list[Measurement]:
        kept = MeasurementStore.default().measurements(device=self._device.name, since=datetime.now(UTC) - _RECENT)
        return [one.measurement for one in reversed(kept)]

    def _known(self, probe: Probe, recent: Sequence[Measurement]) -> Measurement | None:
        """Return the newest measurement that the same request made."""
        asked = self._conditions
        for found in recent:
            alike = (found.artifact_sha256, found.threads) == (probe.artifact.sha256, asked.threads)
            alike = alike and asked.affinity == (() if found.affinity_by_device else found.affinity or ())
            alike = alike and found.compute_units in (None, asked.compute_units)
            alike = alike and (bool(found.operators) or not asked.operators)
            enough = found.runs >= asked.runs and (probe.judge is None or found.verified is not None)
            if alike and enough:
                self._tell(f"{probe.artifact.path.name} on {self._device.name}: measured {found.measured_at:%H:%M}")
                return found
        return None
