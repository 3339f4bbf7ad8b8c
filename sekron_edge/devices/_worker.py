"""The process that measures: ``python -m sekron_edge.devices._worker JOB RESULT``.

A process of its own, so that what it holds is the model's, and a crash of a runtime is an error and not the end.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from sekron_edge.artifacts import Array, Artifact, PreparedSession, Session, TensorSpec, get_exporter
from sekron_edge.errors import DeviceError

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_BLOCK = 4  # timed runs of one artifact before the next has its turn


class Job(BaseModel):
    """What to measure: the artifacts in turn, so that all of them see the same moods of the machine.

    ``inputs`` is a ``.npz`` of arrays in the artifacts' PyTorch layout; absent: random values. A ``call`` hands inputs
    over and fetches outputs; of a ``computation`` neither is timed, where the runtime can do without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifacts: tuple[Artifact, ...]
    inputs: Path | None
    runs: int
    warmup: int
    threads: int
    least_seconds: float
    timed: Literal["call", "computation"] = "call"


class Timing(BaseModel):
    """What was seen of one artifact: each run in milliseconds, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    runtime_version: str
    measurable: bool
    milliseconds: tuple[float, ...]
    peak_memory_bytes: int | None


def _memory(key: str) -> int | None:
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _reset_peak() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _inputs(artifact: Artifact, given: list[Array] | None) -> list[Array]:
    random = np.random.default_rng(0)
    if given is None:
        return [_noise(spec, random) for spec in artifact.inputs]
    batch = artifact.inputs[0].shape[0]
    return [spec.from_torch(array[:batch]) for spec, array in zip(artifact.inputs, given, strict=True)]


def _noise(spec: TensorSpec, random: np.random.Generator) -> Array:
    values = random.standard_normal(spec.shape)
    return values.astype(spec.dtype) if spec.quantization is None else spec.quantization.quantize(values, spec.dtype)


def _timed(session: Session, inputs: list[Array], timed: str) -> Callable[[], object]:
    if timed == "computation" and isinstance(session, PreparedSession):
        return session.prepare(inputs)
    return partial(session.run, inputs)


def _run(compute: Callable[[], object], times: int) -> list[float]:
    seen = []
    for _ in range(times):
        start = time.perf_counter_ns()
        compute()
        seen.append((time.perf_counter_ns() - start) / 1e6)
    return seen


def measure(job: Job) -> list[Timing]:
    """Load every artifact, warm each up, and time them in turn."""
    given = None if job.inputs is None else list(np.load(job.inputs).values())
    exporters = [get_exporter(artifact.format) for artifact in job.artifacts]
    for exporter in exporters:
        exporter.import_runtime()
    inputs = [_inputs(artifact, given) for artifact in job.artifacts]
    before = _memory("VmRSS")
    # With several artifacts in one process nobody can say whose the memory is.
    counted = len(exporters) == 1 and before is not None and _reset_peak()
    sessions = [
        exporter.load(artifact, threads=job.threads)
        for exporter, artifact in zip(exporters, job.artifacts, strict=True)
    ]
    computed = [_timed(session, values, job.timed) for session, values in zip(sessions, inputs, strict=True)]
    for compute in computed:
        _run(compute, job.warmup)
    seen: list[list[float]] = [[] for _ in sessions]
    end = time.perf_counter() + job.least_seconds
    while len(seen[0]) < job.runs or (time.perf_counter() < end and len(seen[0]) < 20 * job.runs):
        for compute, record in zip(computed, seen, strict=True):
            if len(sessions) > 1:
                compute()  # brings its weights back into the caches
            record.extend(_run(compute, _BLOCK))
    peak = None
    if counted and before is not None and (highest := _memory("VmHWM")) is not None:
        peak = max(0, highest - before)
    return [
        Timing(
            runtime=session.runtime,
            runtime_version=session.runtime_version,
            measurable=session.measurable,
            milliseconds=tuple(record),
            peak_memory_bytes=peak,
        )
        for session, record in zip(sessions, seen, strict=True)
    ]


def main() -> None:
    """Measure the job of the first argument, write the timings to the second."""
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    if not job.artifacts:
        raise DeviceError("a job needs at least one artifact")
    timings = measure(job)
    Path(sys.argv[2]).write_text("[" + ",".join(timing.model_dump_json() for timing in timings) + "]")


if __name__ == "__main__":
    main()
