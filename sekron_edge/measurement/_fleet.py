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
from sekron_edge.measurement._conditions import DEFAULT_CONDITIONS, Conditions
from sekron_edge.measurement._device import Device, OutputCheck
from sekron_edge.measurement._records import Footprint, Measurement
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
    """An artifact to measure; with inputs in PyTorch's layout, and a check of what it makes of them on the device."""

    artifact: Artifact
    inputs: tuple[Array, ...] | None = None
    check_outputs: OutputCheck | None = None


@dataclass(frozen=True)
class Retries:
    """When a device is tried again that is away or busy, or was lost.

    Attributes:
        times: How often.
        backoff_s: Before the first retry; twice as long before each next one.
    """

    times: int = 3
    backoff_s: float = 2.0


_USUAL_RETRIES = Retries()


def measure_fleet(
    probes: Sequence[Probe],
    devices: Sequence[Device],
    conditions: Conditions = DEFAULT_CONDITIONS,
    *,
    retries: Retries = _USUAL_RETRIES,
    resume: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> MeasurementReport:
    """Measure every artifact on every device: devices in parallel, the artifacts of one after each other.

    A device that stays unreachable gets no further artifacts. The order of what is returned is that of the artifacts,
    then of the devices.

    Args:
        probes: What to measure.
        devices: Where.
        conditions: How; its time is that of one artifact on one device.
        retries: When a device is tried again.
        resume: Take what was measured under the same conditions since yesterday from the store.
        tell: Is told of each thing done, by several threads.

    Raises:
        ConfigError: If a device is named twice.
    """
    names = [device.name for device in devices]
    if len(set(names)) < len(names):
        raise ConfigError(f"each device can be named once; got {', '.join(names)}")
    stop = threading.Event()
    tours = [_Tour(device, conditions, retries, tell, stop) for device in devices]
    columns = _at_once([partial(tour.measure, probes, resume=resume) for tour in tours], stop)
    results = [column[index] for index in range(len(probes)) for column in columns]
    return MeasurementReport(
        measurements=tuple(one for one in results if isinstance(one, Measurement)),
        failures=tuple(one for one in results if isinstance(one, Failure)),
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
        self,
        device: Device,
        conditions: Conditions,
        retries: Retries,
        tell: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._device = device
        self._conditions = conditions
        self._retries = retries
        self._tell = tell
        self._stop = stop
        self._lost: str | None = None

    def measure(self, probes: Sequence[Probe], *, resume: bool) -> _Column:
        """Measure what can be measured; an error of one artifact is its own."""
        recent = self._recent() if resume else []
        return [self._known(probe, recent) or self._try(probe) for probe in probes]

    def _try(self, probe: Probe) -> Measurement | Failure:
        name = probe.artifact.path.name
        if self._stop.is_set() or self._lost is not None:
            return self._failure(name, "device", f"not tried any more: {self._lost or 'stopped'}")
        try:
            measured = self._measure(probe)
        except UnreachableError as error:
            self._lost = str(error)
            return self._failure(name, "device", str(error))
        except UnsupportedError as error:
            return self._failure(name, "unsupported", str(error))
        except DeviceError as error:
            return self._failure(name, "device", str(error))
        except VerificationError as error:
            return self._failure(name, "verification", str(error))
        self._tell(f"{name} on {self._device.name}: {measured.median_ms:.4g} ms")
        return measured

    def _measure(self, probe: Probe) -> Measurement:
        pause = self._retries.backoff_s
        for left in reversed(range(self._retries.times + 1)):
            try:
                return self._device.measure(
                    probe.artifact, self._conditions, inputs=probe.inputs, check_outputs=probe.check_outputs
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
        wanted = self._conditions
        for earlier in recent:
            alike = (earlier.artifact_sha256, earlier.threads) == (probe.artifact.sha256, wanted.threads)
            alike = alike and wanted.affinity == (() if earlier.affinity_by_device else earlier.affinity or ())
            alike = alike and earlier.compute_units in (None, wanted.compute_units)
            alike = alike and (bool(earlier.operators) or not wanted.operators)
            enough = earlier.runs >= wanted.runs and (probe.check_outputs is None or earlier.verified is not None)
            if alike and enough:
                self._tell(f"{probe.artifact.path.name} on {self._device.name}: measured {earlier.measured_at:%H:%M}")
                return earlier
        return None
