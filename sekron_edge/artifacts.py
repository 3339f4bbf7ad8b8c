"""The contracts between the core and the export formats, and the registry that joins them.

What an exporter must keep (``sekron_edge.testing.ExporterContract`` checks it):

* ``export`` writes the artifact whole or not at all, and returns its description;
* the artifact computes what the model computes in ``eval`` mode; the model is left untouched;
* shapes are those of the example inputs, fixed on purpose;
* ``load`` runs the artifact on this machine with the runtime that ships, or says why it cannot;
* its SDK is imported inside its functions, never when the module is imported.

The core knows no format by name: exporters are found through the entry-point group
``sekron_edge.exporters``. This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from sekron_edge import files
from sekron_edge.errors import ConfigError, ExportError
from sekron_edge.primitives import FileCosts, Primitive

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.generic]
Precision = Literal["fp32", "fp16", "int8", "int8-weights", "int4-weights"]
ENTRY_POINT_GROUP = "sekron_edge.exporters"
_VARIANT = ":"


@dataclass(frozen=True)
class Availability:
    """Whether something can be used here, and if not, why and what to do; the versions of what it stands on."""

    ok: bool
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


class Quantization(BaseModel):
    """How integers stand for real values: ``real = scale * (integer - zero_point)``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(gt=0)
    zero_point: int

    def quantize(self, array: Array, dtype: str) -> Array:
        """Round real values to integers of ``dtype``; what lies beyond its range is clipped."""
        limits = np.iinfo(dtype)
        rounded = np.rint(np.asarray(array, np.float32) / np.float32(self.scale)) + self.zero_point
        clipped: Array = np.clip(rounded, limits.min, limits.max).astype(dtype)
        return clipped

    def dequantize(self, array: Array) -> Array:
        """Return the real values, in float32."""
        real: Array = (array.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return real


class TensorSpec(BaseModel):
    """One input or output of an artifact, as the artifact itself declares it.

    ``shape`` and ``dtype`` are the artifact's own. How they relate to PyTorch's: ``layout`` is ``torch`` (the same
    axes) or ``channels_last`` (axis 1 moved to the end); with a ``quantization`` integers stand for real values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Literal["torch", "channels_last"] = "torch"
    quantization: Quantization | None = None

    def from_torch(self, array: Array) -> Array:
        """Bring an array from PyTorch's layout and type to the artifact's; contiguous."""
        moved = np.moveaxis(array, 1, -1) if self.layout == "channels_last" else array
        if self.quantization is not None:
            moved = self.quantization.quantize(moved, self.dtype)
        return np.ascontiguousarray(moved, dtype=np.dtype(self.dtype))

    def to_torch(self, array: Array) -> Array:
        """Bring an array from the artifact's layout and integers to PyTorch's layout and real values."""
        real = array if self.quantization is None else self.quantization.dequantize(array)
        return np.moveaxis(real, -1, 1) if self.layout == "channels_last" else real


class Arena(BaseModel):
    """The memory that a microcontroller's runtime needs for a model, found by running it in less and less.

    Attributes:
        least_bytes: The smallest arena in which it ran.
        margin: What ``size_bytes`` has beyond, as a share: other builds of the runtime have somewhat larger structures.
        activation_bytes: What activations take of it, as the runtime placed them; the rest describes the model.
        peak: The operator that most is live at, with the tensors.
        kernels: Whose kernels ran; others may want scratch memory beside.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_bytes: int
    margin: float
    activation_bytes: int
    peak: str
    kernels: str

    @property
    def size_bytes(self) -> int:
        """What to reserve: a multiple of 16."""
        return -(-int(self.least_bytes * (1 + self.margin)) // 16) * 16


class NPUEstimate(BaseModel):
    """What the compiler of a neural accelerator says of a model. Nothing of it is measured.

    Attributes:
        provenance: Always ``estimated``.
        accelerator: What it was compiled for.
        system: The compiler's configuration of clock and bandwidths, and of what lies in which memory.
        clock_mhz: Of the accelerator, in that configuration.
        cycles: Of one inference, without the operators in ``on_cpu``.
        sram_bytes: What it works in.
        storage_bytes: Weights and commands, where they are read from.
        on_cpu: The operators that the accelerator does not take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    provenance: Literal["estimated"] = "estimated"
    accelerator: str
    system: str
    clock_mhz: float
    cycles: int
    sram_bytes: int
    storage_bytes: int
    on_cpu: tuple[str, ...]

    @property
    def latency_ms(self) -> float:
        """The time that so many cycles take, without the operators in ``on_cpu``."""
        return self.cycles / self.clock_mhz / 1e3

    def __str__(self) -> str:
        left = f"; left to the CPU, and not counted: {', '.join(self.on_cpu)}" if self.on_cpu else ""
        return (
            f"estimated for {self.accelerator} ({self.system}): {self.cycles:,} cycles, {self.latency_ms:.3g} ms at "
            f"{self.clock_mhz:g} MHz, {self.sram_bytes:,} bytes of SRAM, {self.storage_bytes:,} of weights and "
            f"commands{left}"
        )


class Artifact(BaseModel):
    """A model file for one runtime: where it is, what it takes and gives, what made it.

    ``path`` may be a folder (``.mlpackage``); ``size_bytes`` and ``sha256`` are then over its files. ``versions`` maps
    package to version; ``delegated`` is the share of operators that the runtime's accelerating delegate takes (0 to 1),
    ``macs`` counts the multiply-accumulates of convolutions and linear layers, ``arena`` is the memory of a
    microcontroller's runtime, ``npu`` what the compiler of an accelerator estimates; each is ``None`` where the
    exporter has no such notion. ``compiled_from`` is set where the file runs on no machine but its own: the artifact
    that a compiler made it of, which runs here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    precision: Precision
    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_bytes: int
    sha256: str
    versions: dict[str, str]
    delegated: float | None = None
    macs: int | None = None
    arena: Arena | None = None
    npu: NPUEstimate | None = None
    compiled_from: Artifact | None = None

    @property
    def runnable(self) -> Artifact:
        """What can be run here in its stead: itself, or what it was compiled from."""
        return self.compiled_from or self

    @classmethod
    def describe(
        cls,
        path: Path,
        *,
        format: str,
        precision: Precision,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        versions: dict[str, str],
        delegated: float | None = None,
        macs: int | None = None,
        arena: Arena | None = None,
        npu: NPUEstimate | None = None,
        compiled_from: Artifact | None = None,
    ) -> Artifact:
        """Describe the artifact at ``path``, hashing it."""
        return cls(
            format=format,
            precision=precision,
            path=path,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            size_bytes=files.size_bytes(path),
            sha256=files.sha256(path),
            versions=versions,
            delegated=delegated,
            macs=macs,
            arena=arena,
            npu=npu,
            compiled_from=compiled_from,
        )


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
        """Hand over inputs in the artifact's own layout; return what computes on them, and fetches nothing."""
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


def calibratable(name: str, precision: Precision) -> bool:
    """Say whether a latency model can be fitted to an exporter's runtime in a precision."""
    exporter = get_exporter(name)
    return (
        isinstance(exporter, PrimitiveExporter | TracedPrimitiveExporter) and precision in exporter.primitive_precisions
    )


@runtime_checkable
class SizedExporter(Protocol):
    """What an exporter may offer beside the rest: what operations take in its files, so that sizes can be planned.

    Attributes:
        file_costs: By precision; where there is none, nothing is known beside the weights.
    """

    file_costs: Mapping[Precision, FileCosts]


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


_registered: dict[str, Exporter] = {}


def register_exporter(exporter: Exporter) -> None:
    """Make an exporter known by its name, beside those found through entry points.

    Raises:
        ConfigError: If the name is taken.
    """
    if exporter.name in exporter_names():
        raise ConfigError(f"an exporter named {exporter.name!r} exists; choose another name")
    _registered[exporter.name] = exporter


def exporter_names() -> list[str]:
    """Return the names of all known exporters, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} | set(_registered))


def exporter_family(name: str) -> str:
    """Return the name of an exporter without its variant: ``ethos-u`` of ``ethos-u:u85-256``."""
    return name.partition(_VARIANT)[0]


def get_exporter(name: str) -> Exporter:
    """Return the exporter called ``name``; ``FAMILY:VARIANT`` where the family has variants.

    Raises:
        ConfigError: If there is none; lists those that exist.
    """
    if name in _registered:
        return _registered[name]
    family, _, variant = name.partition(_VARIANT)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == family:
            made = point.load()
            variants: tuple[str, ...] = getattr(made, "variants", ())
            if variant and variant not in variants:
                raise ConfigError(f"{family} has no variant {variant!r}; it has: {', '.join(variants) or 'none'}")
            exporter: Exporter = made(variant) if variant else made()
            return exporter
    raise ConfigError(f"no export format {name!r}; known formats: {', '.join(exporter_names())}")


def adopt(file: Path, *, format: str, folder: Path) -> Artifact:
    """Take up a file that something else wrote as an artifact of ``format``.

    Args:
        file: Used as it is.
        format: Of an exporter that takes such files.
        folder: For what has to be made of it.

    Raises:
        ConfigError: If there is no such format, or it takes only what its exporter wrote.
        ExportError: If the file is of another format, or cannot run there.
    """
    exporter = get_exporter(format)
    if not isinstance(exporter, AdoptingExporter):
        able = [name for name in exporter_names() if isinstance(get_exporter(name), AdoptingExporter)]
        raise ConfigError(f"{format} takes no files that something else wrote; {', '.join(able)} do")
    return exporter.adopt(file, folder)


def export(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    format: str,
    precision: Precision = "fp32",
    out: str | Path,
    name: str = "model",
    calibration: Sequence[torch.Tensor] | None = None,
) -> Artifact:
    """Export a model as ``out/NAME_PRECISION.SUFFIX``.

    Args:
        model: Any module; exported in ``eval`` mode, left untouched.
        example_inputs: One tensor an input; their shapes become the artifact's.
        format: ``executorch``, ``coreml``, ``litert``, or that of an installed plug-in.
        precision: One of the format's precisions.
        out: Folder to write to, made if absent.
        name: Stem of the file.
        calibration: Real inputs, one tensor ``(samples, ...)`` an input of the model, never held-out data; int8
            activations take their scales from them.

    Raises:
        ConfigError: If the format, or the precision in that format, does not exist; if int8 lacks calibration data.
        ExportError: If the conversion fails.
    """
    exporter = get_exporter(format)
    if precision not in exporter.precisions:
        raise ConfigError(f"{format} exports {', '.join(exporter.precisions)}, not {precision!r}; choose one of those")
    path = Path(out) / f"{name}_{precision}{exporter.suffix}"
    return exporter.export(model, example_inputs, precision=precision, path=path, calibration=calibration)


def predict(session: Session, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Run a session on inputs in PyTorch's layout; outputs come back in PyTorch's layout.

    The batch of ``inputs`` may be any multiple of the artifact's own batch: it is run in pieces.

    Raises:
        ExportError: If the number of inputs, or a shape, is not the artifact's.
    """
    if len(inputs) != len(artifact.inputs):
        raise ExportError(f"{artifact.path.name} takes {len(artifact.inputs)} inputs, {len(inputs)} were given")
    batch = artifact.inputs[0].shape[0]
    total = inputs[0].shape[0]
    if total % batch:
        raise ExportError(f"{artifact.path.name} runs batches of {batch}; {total} samples do not divide into them")
    pieces = []
    for start in range(0, total, batch):
        piece = [
            spec.from_torch(array[start : start + batch]) for spec, array in zip(artifact.inputs, inputs, strict=True)
        ]
        pieces.append(session.run(piece))
    return tuple(
        spec.to_torch(np.concatenate([piece[index] for piece in pieces])) for index, spec in enumerate(artifact.outputs)
    )
