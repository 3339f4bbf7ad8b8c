"""What an artifact is: a file, what it takes and gives, and what is known of its needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from sekron_edge import files

Array = npt.NDArray[np.number[Any]]
Precision = Literal["fp32", "fp16", "int16x8", "int8", "int8-weights", "int4-weights"]


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


# What models call the one output that a task is about.
MAIN_OUTPUTS = ("logits", "out")


class TensorSpec(BaseModel):
    """One input or output of an artifact, as the artifact itself declares it.

    ``shape`` and ``dtype`` are the artifact's own. How they relate to PyTorch's: ``layout`` is ``torch`` (the same
    axes) or ``channels_last`` (axis 1 moved to the end); with a ``quantization`` integers stand for real values.
    ``place`` is the tensor's in the model's own inputs or outputs, as ``boxes``, ``features.0`` or ``output_0``; empty
    where the model is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Literal["torch", "channels_last"] = "torch"
    quantization: Quantization | None = None
    place: str = ""

    @property
    def title(self) -> str:
        """What people know the tensor by: its place in the model, or else its name in the file."""
        return self.place or self.name

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """The shape in PyTorch's layout."""
        batch, *rest = self.shape
        return (batch, rest[-1], *rest[:-1]) if self.layout == "channels_last" else self.shape

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


def _placed(specs: tuple[TensorSpec, ...], places: Sequence[str]) -> tuple[TensorSpec, ...]:
    if len(specs) != len(places):
        return specs
    return tuple(spec.model_copy(update={"place": place}) for spec, place in zip(specs, places, strict=True))


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
        storage_bytes: Weights, where they are read from. Commands are in the file beside.
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
            f"{self.clock_mhz:g} MHz, {self.sram_bytes:,} bytes of SRAM, {self.storage_bytes:,} of weights"
            f"{left}"
        )


class NPUSizes(BaseModel):
    """What a file says of itself that was compiled for a neural accelerator elsewhere. Its cycles are in no file.

    Attributes:
        accelerator: What it was compiled for.
        sram_bytes: What the accelerator works in.
        arena_bytes: What the runtime places tensors in. It is the same memory, unless SRAM is a cache of a larger one.
        weights_bytes: Of weights, as they are compressed.
        commands_bytes: Of commands.
        on_cpu: The operators that the accelerator does not take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    accelerator: str
    sram_bytes: int
    arena_bytes: int
    weights_bytes: int
    commands_bytes: int
    on_cpu: tuple[str, ...]

    def __str__(self) -> str:
        left = f"; left to the CPU: {', '.join(self.on_cpu)}" if self.on_cpu else ""
        return (
            f"read from the file, compiled for {self.accelerator} already: {self.sram_bytes:,} bytes of SRAM, "
            f"{self.weights_bytes:,} of weights, {self.commands_bytes:,} of commands, an arena of {self.arena_bytes:,} "
            f"and what the runtime itself needs{left}. Cycles are in no such file: they are estimated from the one "
            "that it was compiled from"
        )


class Artifact(BaseModel):
    """A model file for one runtime: where it is, what it takes and gives, what made it.

    ``path`` may be a folder (``.mlpackage``); ``size_bytes`` and ``sha256`` are then over its files. ``versions`` maps
    package to version; ``delegated`` is the share of operators that the runtime's accelerating delegate takes (0 to 1),
    ``keep_float`` names the model's layers that are in float where the others are rounded,
    ``macs`` counts the multiply-accumulates of convolutions and linear layers, ``arena`` is the memory of a
    microcontroller's runtime, ``npu`` what the compiler of an accelerator estimates, ``npu_sizes`` what
    is read from a file that was compiled elsewhere; each is ``None`` where the
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
    keep_float: tuple[str, ...] = ()
    delegated: float | None = None
    macs: int | None = None
    arena: Arena | None = None
    npu: NPUEstimate | None = None
    npu_sizes: NPUSizes | None = None
    compiled_from: Artifact | None = None

    @property
    def main_output(self) -> TensorSpec:
        """The output that a task with one output is about: the one called ``logits`` or ``out``, else the first."""
        named = {spec.place: spec for spec in reversed(self.outputs)}
        return next((named[place] for place in MAIN_OUTPUTS if place in named), self.outputs[0])

    def placed(self, inputs: Sequence[str], outputs: Sequence[str]) -> Artifact:
        """Return the artifact with the places of its tensors in the model, in order, where it has as many."""
        source = self.compiled_from
        return self.model_copy(
            update={
                "inputs": _placed(self.inputs, inputs),
                "outputs": _placed(self.outputs, outputs),
                "compiled_from": None if source is None else source.placed(inputs, outputs),
            }
        )

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
        npu_sizes: NPUSizes | None = None,
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
            npu_sizes=npu_sizes,
            compiled_from=compiled_from,
        )
