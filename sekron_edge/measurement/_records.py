"""What a measurement is, whichever device and transport made it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from sekron_edge.measurement._foreign import PlainText

Timed = Literal["call", "computation"]
ComputeUnits = Literal["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"]


class Environment(BaseModel):
    """Where a measurement was made. What could not be read is ``None``; clock and temperature before, and after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    system: str
    cpu: str | None = None
    cores: int | None = None
    governor: str | None = None
    clock_mhz: float | None = None
    clock_after_mhz: float | None = None
    temperature_celsius: float | None = None
    temperature_after_celsius: float | None = None
    python: str | None = None


class Load(BaseModel):
    """What else ran while a measurement was made, as shares between 0 and 1; None of what the system does not count.

    Attributes:
        waited: Of the time that the runner's threads could have run, the share in which they waited for a core.
        stolen: Of the time that a virtual machine wanted to run, the share in which others had its cores.
        others: Of all cores' time, the share that other processes had.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    waited: float | None = None
    stolen: float | None = None
    others: float | None = None


class OperatorTime(BaseModel):
    """What one operator took, on average over the runs, as the runtime's profiler says.

    ``spread_ms`` is the interquartile range; None of tools that state only averages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainText
    kind: PlainText
    milliseconds: float = Field(ge=0, allow_inf_nan=False)
    spread_ms: float | None = None


class Measurement(BaseModel):
    """The latency and memory of one artifact, by its file's name and hash, on one device.

    Latencies are milliseconds an inference at the artifact's own batch. Of tools that state only means of ``averaged``
    runs, ``median_ms`` and ``min_ms`` are of the means, and the other quantiles None. ``peak_memory_bytes`` is the
    memory attributable to the model: the process's peak while loading and running, less what it held before.
    ``stable`` is False, and ``remarks`` say why, when the figures are too noisy to quote; ``throttled`` when the device
    lowered its clock meanwhile. ``affinity`` are the cores that it was bound to (``affinity_by_device`` if nobody had
    asked for any), ``compute_units`` those that Core ML might use, ``verified`` is what a check of the outputs found
    there. ``load`` is what else ran on the machine meanwhile, where it says. An ``emulated`` latency says nothing about
    a device, and is never stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    artifact_name: str = ""
    artifact_sha256: str
    format: str
    precision: str
    device: str
    runtime: str
    runtime_version: str
    threads: int
    affinity: tuple[int, ...] | None = None
    affinity_by_device: bool = False
    compute_units: ComputeUnits | None = None
    timed: Timed = "call"
    averaged: int = 1
    warmup: int
    runs: int
    median_ms: float
    p90_ms: float | None
    iqr_ms: float | None
    min_ms: float
    peak_memory_bytes: int | None
    stable: bool
    throttled: bool = False
    emulated: bool = False
    verified: str | None = None
    remarks: tuple[str, ...] = ()
    load: Load | None = None
    operators: tuple[OperatorTime, ...] = ()
    measured_at: datetime
    environment: Environment


class Footprint(BaseModel):
    """What a microcontroller needs for an artifact: counted, tested on this machine, or estimated.

    Attributes:
        artifact_name, artifact_sha256: Of its file.
        format: What it is for.
        flash_bytes: Of the file.
        ram_bytes: To work in.
        macs: Multiply-accumulates.
        cycles: Of one inference; None where no core was named, or nothing is published of it.
        latency_ms: Of so many cycles, typical.
        latency_range_ms: The shortest and the longest, where networks differ.
        source: Where memory, cycles and latency are from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_name: str
    artifact_sha256: str
    format: str
    flash_bytes: int
    ram_bytes: int
    macs: int | None
    cycles: int | None = None
    latency_ms: float | None = None
    latency_range_ms: tuple[float, float] | None = None
    source: str
