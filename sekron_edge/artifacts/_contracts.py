"""What exporters and sessions are, and what exporters may offer beside the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sekron_edge.artifacts._artifact import Array, Artifact, Precision
from sekron_edge.artifacts._conversion import Availability, Sdk
from sekron_edge.primitives import FileCosts, Primitive

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Session(Protocol):
    """An artifact loaded in a runtime on this machine.

    Attributes:
        runtime: Name of the runtime, for example ``litert``.
        runtime_version: Its version.
        measurable: True where timing it says something about the runtime that ships; False
            for a reference evaluator.
    """

    runtime: str
    runtime_version: str
    measurable: bool

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once. Inputs and outputs are in the artifact's own layout and types."""
        ...


@runtime_checkable
class PreparedSession(Protocol):
    """What a session may offer beside the rest: the computation alone, for latency models."""

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Hand over inputs in the artifact's own layout; return what computes on them, and fetches nothing.

        Called after others had their turn; what it leaves in the caches should be what a network would: the memory of
        inputs and outputs.
        """
        ...


class Exporter(Protocol):
    """One format.

    Attributes:
        name: What users call it (``litert``).
        suffix: Of its files, with the dot (``.tflite``).
        precisions: Those that ``export`` takes.

    A class that makes several, one for each chip, lists them as ``variants``, and takes the name of one.
    """

    name: str
    suffix: str
    precisions: tuple[Precision, ...]

    def availability(self) -> Availability:
        """Say whether models can be converted here, without importing the SDK."""
        ...

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
    ) -> Artifact:
        """Convert ``model`` and write it to ``path``, replacing what stands there.

        Args:
            model: Left untouched.
            example_inputs: One tensor an input.
            precision: One of ``precisions``.
            path: File, or folder, to write.
            calibration: Real inputs, one tensor ``(samples, ...)`` an input of the model, whose ranges decide the
                scales of int8 activations; never held-out data. Ignored where nothing is quantized.

        Raises:
            ConfigError: If activations are to be quantized and there is no calibration data.
            ExportError: If the conversion fails; names the format and the cause.
            MissingDependencyError: If the SDK is absent.
        """
        ...

    def import_runtime(self) -> None:
        """Import the runtime, so that what a process holds from then on is the model's.

        Raises:
            MissingDependencyError: If the runtime is absent.
        """
        ...

    def load(self, artifact: Artifact, *, threads: int = 1) -> Session:
        """Load an artifact in the runtime of this machine.

        Raises:
            ExportError: If the file cannot be read by the runtime.
            MissingDependencyError: If the runtime is absent.
        """
        ...


@runtime_checkable
class KeepingExporter(Exporter, Protocol):
    """What an exporter may offer beside the rest: layers that stay in float where the others are rounded.

    Attributes:
        keeps_float_in: The precisions in which it can.
    """

    keeps_float_in: tuple[Precision, ...]

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
        keep_float: Sequence[str] = (),
    ) -> Artifact:
        """Convert as `Exporter.export` does.

        What a rounded layer or addition gives is integers; what kept layers and inputs give stays in float until
        something rounded reads it (`sekron_edge.nn.FakeQuantized`).

        Args:
            model: As for `Exporter.export`.
            example_inputs: As for `Exporter.export`.
            precision: As for `Exporter.export`; one of ``keeps_float_in`` where layers are kept.
            path: As for `Exporter.export`.
            calibration: As for `Exporter.export`.
            keep_float: Names of layers of ``model`` that stay in float, a factorized one with all its factors.
        """
        ...


class CalibratableExporter(Protocol):
    """What an exporter may offer beside the rest, in one of two ways: models of primitives, to fit latency models to.

    Attributes:
        suffix: The exporter's.
        primitive_precisions: Those that primitives can be exported in.
        primitive_count: How many a calibration can afford: all of them should take a few minutes at most.
    """

    suffix: str
    primitive_precisions: tuple[Precision, ...]
    primitive_count: int


@runtime_checkable
class PrimitiveExporter(CalibratableExporter, Protocol):
    """A model for each primitive, timed as a whole."""

    def export_primitive(self, primitive: Primitive, path: Path, *, precision: Precision) -> Artifact:
        """Write a model of one primitive, with random weights."""
        ...


@runtime_checkable
class TracedPrimitiveExporter(CalibratableExporter, Protocol):
    """Where a model for each would take too long: models of many primitives, each timed by the runtime's own tracer."""

    def export_primitives(self, primitives: Sequence[Primitive], path: Path, *, precision: Precision) -> Artifact:
        """Write a model of primitives side by side, with random weights."""
        ...

    def primitive_times(
        self, primitives: Sequence[Primitive], operators: Sequence[tuple[str, float, float]]
    ) -> list[tuple[float, float]]:
        """Return the milliseconds of each primitive, and their spread, from those of the operators in their order.

        Raises:
            ExportError: If these are not the operators of such a model.
        """
        ...


@runtime_checkable
class SizedExporter(Protocol):
    """What an exporter may offer beside the rest: what operations take in its files, so that sizes can be planned.

    Attributes:
        file_costs: By precision; where there is none, nothing is known beside the weights.
    """

    file_costs: Mapping[Precision, FileCosts]


@runtime_checkable
class SdkExporter(Protocol):
    """What an exporter may offer beside the rest: the packages that it stands on, for ``doctor``."""

    sdk: Sdk


@dataclass(frozen=True)
class DeviceRuntime:
    """What loads and runs artifacts on a device: one file of Python, which travels there with the runner.

    It may import the standard library of Python 3.8, numpy and the runtime, and nothing of sekron-edge. A class in it
    is made once for each artifact, of what the runner was told: ``path``, ``inputs`` and ``outputs`` (each with
    ``name``, ``shape``, ``dtype``), ``compute_units``. It imports the runtime when it is made. Its method ``load``
    takes the same and the number of threads, and returns a `Session`; that may also be a `PreparedSession`, and have
    ``operators(inputs)``, which returns for each operator ``name``, ``kind``, ``milliseconds`` and ``spread_ms``. One
    that keeps to ``compute_units`` has them as an attribute.

    Attributes:
        source: The file.
        name: Of the class.
        systems: The values of ``sys.platform`` where the runtime exists; anywhere if empty.
    """

    source: Path
    name: str
    systems: tuple[str, ...] = ()

    @property
    def runs_here(self) -> bool:
        """Whether this machine is of such a system."""
        return not self.systems or sys.platform in self.systems


@runtime_checkable
class DeviceExporter(Protocol):
    """What an exporter may offer beside the rest: a runtime that travels, so that artifacts are measured on devices.

    Attributes:
        device_runtime: None where a variant has none.
    """

    device_runtime: DeviceRuntime | None


@dataclass(frozen=True)
class Snippet:
    """A template of the code that loads an artifact on its device, for people to start from.

    Attributes:
        name: Of the file; ``{stem}`` stands for the artifact's name.
        template: Jinja's, with ``artifact`` and the bundle's ``manifest`` at hand; paths are relative to the bundle,
            in which the code lies in the folder ``snippets``.
    """

    name: str
    template: str


@runtime_checkable
class SnippetExporter(Protocol):
    """What an exporter may offer beside the rest: the code that loads its artifacts, for bundles."""

    def snippet(self) -> Snippet | None:
        """Return the template; None where a variant has none."""
        ...


@runtime_checkable
class SourceExporter(Protocol):
    """What an exporter may offer beside the rest: source code that a model is compiled into firmware with."""

    def sources(self, artifact: Artifact) -> dict[str, str]:
        """Return the text of each source file, by its name."""
        ...


@runtime_checkable
class AdoptingExporter(Protocol):
    """What an exporter may offer beside the rest: taking up files that something else wrote."""

    def adopt(self, file: Path, folder: Path) -> Artifact:
        """Describe a file; what has to be made of it is written into ``folder``.

        Raises:
            ExportError: If it is of another format, or cannot run there.
        """
        ...
