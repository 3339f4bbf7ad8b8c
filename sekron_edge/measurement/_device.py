"""A device that artifacts are measured on with the runner; how the runner gets there is each device's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import DeviceError, UnsupportedError
from sekron_edge.measurement._conditions import DEFAULT_CONDITIONS, Conditions
from sekron_edge.measurement._protocol import MeasurementRequest, Outcome
from sekron_edge.measurement._records import Measurement
from sekron_edge.measurement._store import MeasurementStore
from sekron_edge.measurement._summary import summary
from sekron_edge.measurement.on_device import runner

RUNNER = Path(runner.__file__)
# Handed the outputs for all inputs, in PyTorch's layout: says how they are, or raises a VerificationError.
OutputCheck = Callable[[tuple[Array, ...]], str]


class Device(ABC):
    """Where artifacts are measured. What is measured of them is kept in the store; an emulated device's is not.

    Whoever brings a new kind of device implements `carry_out`, and `sekron_edge.testing.DeviceContract` checks it.

    Attributes:
        name: What users call it: ``local``, ``ssh:board``, ``adb:SERIAL``.
        emulated: Whether its latencies are none of a device's.
    """

    name: str
    emulated: bool = False

    @abstractmethod
    def carry_out(self, request: MeasurementRequest) -> Outcome:
        """Have the artifacts of a request measured on the device.

        It ends within ``request.conditions.timeout_s`` and the few seconds that ending a run takes. Whatever it raises,
        nothing is left: on the device no process, and no file that was not there before; here no process.

        Args:
            request: What to measure, and how; its artifacts are the files that were described.

        Returns:
            What was seen: the request's token, and for each artifact, in order, every run in milliseconds; what the
            system's files say of the device before and after. If the request wants outputs, those of each artifact for
            all inputs, in PyTorch's layout; none where the device's own program gives none.

        Raises:
            UnreachableError: If the device is away or busy, or was lost meanwhile: trying again may help.
            UnsupportedError: If the device runs no artifacts of this format.
            DeviceError: If anything else is in the way: inputs that are not the artifact's, a runtime that is absent
                or crashes, time that is up, times that cannot be the truth.
        """

    def measure(
        self,
        artifact: Artifact,
        conditions: Conditions = DEFAULT_CONDITIONS,
        *,
        inputs: Sequence[Array] | None = None,
        check_outputs: OutputCheck | None = None,
    ) -> Measurement:
        """Measure one artifact in a process of its own.

        Args:
            artifact: What to run.
            conditions: How.
            inputs: Arrays in PyTorch's layout, any number of batches; random values if None. The first batch is timed.
            check_outputs: Handed the outputs for all inputs; what it says becomes ``verified``. Where the device's own
                program gives none, it is not called, and nothing is called verified.

        Raises:
            DeviceError: As `carry_out`, and if the artifact is not there, or not the file that was described.
        """
        request = MeasurementRequest(
            (artifact,), conditions, _as_tuple(inputs), wants_outputs=check_outputs is not None
        )
        (measured,), outputs = self._measured(request)
        if check_outputs is not None and outputs[0]:
            measured = measured.model_copy(update={"verified": check_outputs(outputs[0])})
        return _kept([measured])[0]

    def measure_together(
        self,
        artifacts: Sequence[Artifact],
        conditions: Conditions = DEFAULT_CONDITIONS,
        *,
        inputs: Sequence[Array] | None = None,
    ) -> list[Measurement]:
        """Measure artifacts of one format in turn in one process, so that their ratios hold on a noisy machine.

        Nobody can say whose the memory is then, so that is not stated; `measure` reads it.

        Raises:
            DeviceError: As `measure`, and if the formats differ: two runtimes in one process can crash, each with
                its own copy of XNNPACK.
        """
        if len({artifact.format for artifact in artifacts}) > 1:
            raise DeviceError("only artifacts of one format can be measured together; measure each format by itself")
        return _kept(self._measured(MeasurementRequest(tuple(artifacts), conditions, _as_tuple(inputs)))[0])

    def time_computations(self, artifacts: Sequence[Artifact], conditions: Conditions) -> list[Measurement]:
        """Time artifacts of one format in turn, on random values, without handing over inputs and fetching outputs.

        Where the runtime knows no other way, both are in the times. Nothing is waited for but the warm-up.

        Raises:
            DeviceError: As `measure`.
        """
        request = MeasurementRequest(tuple(artifacts), conditions, timed="computation", settle_seconds=0.0)
        return self._measured(request)[0]

    def time_operators(self, artifacts: Sequence[Artifact], conditions: Conditions) -> list[Measurement]:
        """Time the operators of artifacts of one format, on random values, by the runtime's own tracer.

        Raises:
            DeviceError: As `measure`, and if no tracer's times come from the device.
        """
        traced = replace(conditions, operators=True)
        request = MeasurementRequest(tuple(artifacts), traced, settle_seconds=0.0, least_seconds=0.0)
        measured = self._measured(request)[0]
        if not all(one.operators for one in measured):
            raise UnsupportedError(
                f"{self.name}: no operators' times come from there, which {artifacts[0].format} is calibrated with"
            )
        return measured

    def _measured(self, request: MeasurementRequest) -> tuple[list[Measurement], tuple[tuple[Array, ...], ...]]:
        request.check()
        started = datetime.now(UTC)
        outcome = self.carry_out(request)
        measured = [
            summary(
                artifact,
                timing,
                request=request,
                answer=outcome.answer,
                device=self.name,
                emulated=self.emulated,
                started=started,
            )
            for artifact, timing in zip(request.artifacts, outcome.answer.timings, strict=True)
        ]
        return measured, outcome.outputs


def _as_tuple(inputs: Sequence[Array] | None) -> tuple[Array, ...] | None:
    return None if inputs is None else tuple(inputs)


def _kept(measured: list[Measurement]) -> list[Measurement]:
    """Put measurements into the store; what is emulated is none of a device's."""
    store = MeasurementStore.default()
    for measurement in measured:
        if not measurement.emulated:
            store.keep(measurement)
    return measured
