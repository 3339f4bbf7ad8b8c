"""A device that artifacts are measured on with the runner; how the runner gets there is each device's own."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import DeviceError, UnsupportedError
from sekron_edge.measurement._protocol import Job, Outcome
from sekron_edge.measurement._records import ComputeUnits, Measurement
from sekron_edge.measurement._store import MeasurementStore
from sekron_edge.measurement._summary import summary
from sekron_edge.measurement.on_device import runner

RUNNER = Path(runner.__file__)
# Handed the outputs for all inputs, in PyTorch's layout: says what it found, or raises.
Judge = Callable[[tuple[Array, ...]], str]


class Device(ABC):
    """Where artifacts are measured. What is measured of them is kept in the store; an emulated device's is not.

    Attributes:
        name: What users call it: ``local``, ``ssh:board``, ``adb:SERIAL``.
        emulated: Whether its latencies are none of a device's.
    """

    name: str
    emulated: bool = False

    @abstractmethod
    def _carry(self, job: Job, timeout_s: float) -> Outcome:
        """Have the runner do a job, within the time."""

    def measure(
        self,
        artifact: Artifact,
        inputs: Sequence[Array] | None = None,
        *,
        runs: int = 50,
        warmup: int = 10,
        threads: int = 1,
        affinity: Sequence[int] = (),
        compute_units: ComputeUnits = "ALL",
        operators: bool = False,
        timeout_s: float = 600.0,
        judge: Judge | None = None,
    ) -> Measurement:
        """Measure one artifact in a process of its own. See `sekron_edge.measurement.measure` for the arguments.

        Where the device's own program gives no outputs, the judge sees none, and nothing is called verified.
        """
        job = Job(
            (artifact,),
            None if inputs is None else tuple(inputs),
            answered=judge is not None,
            runs=runs,
            warmup=warmup,
            threads=threads,
            affinity=tuple(affinity),
            compute_units=compute_units,
            operators=operators,
        )
        (found,), outputs = self._do(job, timeout_s)
        if judge is not None and outputs[0]:
            found = found.model_copy(update={"verified": judge(outputs[0])})
        return _kept([found])[0]

    def measure_together(
        self,
        artifacts: Sequence[Artifact],
        inputs: Sequence[Array] | None = None,
        *,
        runs: int = 50,
        warmup: int = 10,
        threads: int = 1,
        timeout_s: float = 600.0,
    ) -> list[Measurement]:
        """Measure artifacts of one format in turn in one process, so that their ratios hold on a noisy machine.

        Nobody can say whose the memory is then, so that is not stated; `measure` reads it.

        Raises:
            DeviceError: As `measure`, and if the formats differ: two runtimes in one process can crash, each with
                its own copy of XNNPACK.
        """
        if len({artifact.format for artifact in artifacts}) > 1:
            raise DeviceError("only artifacts of one format can be measured together; measure each format by itself")
        given = None if inputs is None else tuple(inputs)
        job = Job(tuple(artifacts), given, runs=runs, warmup=warmup, threads=threads)
        return _kept(self._do(job, timeout_s)[0])

    def time_computations(
        self, artifacts: Sequence[Artifact], *, runs: int, threads: int, timeout_s: float = 600.0
    ) -> list[Measurement]:
        """Time artifacts of one format in turn, on random values, without handing over inputs and fetching outputs.

        Where the runtime knows no other way, both are in the times.

        Raises:
            DeviceError: As `measure`.
        """
        job = Job(tuple(artifacts), runs=runs, warmup=2, settle_seconds=0.0, threads=threads, timed="computation")
        return self._do(job, timeout_s)[0]

    def time_operators(
        self, artifacts: Sequence[Artifact], *, threads: int, timeout_s: float = 600.0
    ) -> list[Measurement]:
        """Time the operators of artifacts of one format, on random values, by the runtime's own tracer.

        Raises:
            DeviceError: As `measure`, and if no tracer's times come from the device.
        """
        job = Job(
            tuple(artifacts), runs=1, warmup=1, settle_seconds=0.0, least_seconds=0.0, threads=threads, operators=True
        )
        found = self._do(job, timeout_s)[0]
        if not all(one.operators for one in found):
            raise UnsupportedError(
                f"{self.name}: no operators' times come from there, which {artifacts[0].format} is calibrated with"
            )
        return found

    def _do(self, job: Job, timeout_s: float) -> tuple[list[Measurement], tuple[tuple[Array, ...], ...]]:
        job.check()
        started = datetime.now(UTC)
        done = self._carry(job, timeout_s)
        found = [
            summary(
                artifact,
                timing,
                job=job,
                answer=done.answer,
                device=self.name,
                emulated=self.emulated,
                started=started,
            )
            for artifact, timing in zip(job.artifacts, done.answer.timings, strict=True)
        ]
        return found, done.outputs


def _kept(found: list[Measurement]) -> list[Measurement]:
    """Put measurements into the store; what is emulated is none of a device's."""
    store = MeasurementStore.default()
    for measurement in found:
        if not measurement.emulated:
            store.keep(measurement)
    return found


class Deadline:
    """A time until which all of something must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> float:
        """Seconds since it was set."""
        return self.seconds - (self._end - time.monotonic())

    def missed(self, device: str, job: Job) -> DeviceError:
        """Return the error that says so."""
        return DeviceError(
            f"{device}: measuring {job.names} took longer than {self.seconds:g} s; ask for fewer than {job.runs} runs "
            "or allow more"
        )
