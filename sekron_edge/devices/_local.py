"""This machine as a device: artifacts are measured here, each in a process of its own."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from sekron_edge.artifacts import Array, Artifact
from sekron_edge.devices import _hostinfo
from sekron_edge.devices._measurement import Environment, Measurement
from sekron_edge.devices._worker import Job, Timing
from sekron_edge.errors import DeviceError

# A spread above the first, or a drift above the second, is too much to quote a median.
_WIDEST_SPREAD = 0.25
_LARGEST_DRIFT = 0.15
_STDERR_CHARACTERS = 1500
_LEAST_SECONDS = 0.5


class LocalDevice:
    """This machine. See `measure` for the arguments."""

    name = "local"

    def measure(
        self,
        artifact: Artifact,
        inputs: Sequence[Array] | None = None,
        *,
        runs: int = 50,
        warmup: int = 10,
        threads: int = 1,
        timeout_s: float = 600.0,
    ) -> Measurement:
        """Measure one artifact in a process of its own."""
        return self._measure([artifact], inputs, runs, warmup, threads, timeout_s)[0]

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
        return self._measure(artifacts, inputs, runs, warmup, threads, timeout_s)

    def time_computations(
        self, artifacts: Sequence[Artifact], *, runs: int, threads: int, timeout_s: float = 600.0
    ) -> list[Measurement]:
        """Time artifacts of one format in turn, on random values, without handing over inputs and fetching outputs.

        Where the runtime knows no other way, both are in the times.

        Raises:
            DeviceError: As `measure`.
        """
        return self._measure(artifacts, None, runs, 2, threads, timeout_s, timed="computation")

    def _measure(
        self,
        artifacts: Sequence[Artifact],
        inputs: Sequence[Array] | None,
        runs: int,
        warmup: int,
        threads: int,
        timeout_s: float,
        timed: Literal["call", "computation"] = "call",
    ) -> list[Measurement]:
        if runs < 1 or warmup < 0 or threads < 1:
            raise DeviceError(
                f"runs and threads must be at least 1 and warmup not negative; got {runs}, {threads}, {warmup}"
            )
        for artifact in artifacts:
            if not artifact.path.exists():
                raise DeviceError(f"there is no artifact at {artifact.path}")
        started = datetime.now(UTC)
        with tempfile.TemporaryDirectory() as folder:
            given = None
            if inputs is not None:
                given = Path(folder) / "inputs.npz"
                np.savez(given, *inputs)
            job = Job(
                artifacts=tuple(artifacts),
                inputs=given,
                runs=runs,
                warmup=warmup,
                threads=threads,
                least_seconds=_LEAST_SECONDS,
                timed=timed,
            )
            timings = _in_worker(job, Path(folder), timeout_s)
        environment = _environment()
        return [
            _summary(artifact, timing, self.name, threads, warmup, started, environment)
            for artifact, timing in zip(artifacts, timings, strict=True)
        ]


def measure(
    artifact: Artifact,
    device: str = "local",
    *,
    inputs: Sequence[Array] | None = None,
    runs: int = 50,
    warmup: int = 10,
    threads: int = 1,
    timeout_s: float = 600.0,
) -> Measurement:
    """Measure the latency and the memory of an artifact on a device.

    A run is one call of the runtime with the inputs handed over and the outputs fetched.

    Args:
        artifact: What to run.
        device: ``local``, this machine.
        inputs: Arrays in PyTorch's layout; random values if None.
        runs: The least number of timed runs; a fast model gets more, up to half a second.
        warmup: Runs before the first that counts.
        threads: Threads the runtime may use.
        timeout_s: After so many seconds the measurement is given up.

    Raises:
        DeviceError: If there is no such device, the runtime cannot run here, crashes, or takes too long.
    """
    if device != LocalDevice.name:
        raise DeviceError(f"no device {device!r}; known devices: {LocalDevice.name}")
    return LocalDevice().measure(artifact, inputs, runs=runs, warmup=warmup, threads=threads, timeout_s=timeout_s)


def _in_worker(job: Job, folder: Path, timeout_s: float) -> list[Timing]:
    asked, answer = folder / "job.json", folder / "timings.json"
    asked.write_text(job.model_dump_json())
    names = ", ".join(artifact.path.name for artifact in job.artifacts)
    command = [sys.executable, "-m", "sekron_edge.devices._worker", str(asked), str(answer)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeviceError(
            f"measuring {names} took longer than {timeout_s:g} s; ask for fewer than {job.runs} runs or allow more"
        ) from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise DeviceError(f"the runtime ended with {name} while measuring {names}; is the file damaged?")
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-_STDERR_CHARACTERS:]
        raise DeviceError(f"measuring {names} failed:\n{said}")
    return TypeAdapter(list[Timing]).validate_json(answer.read_bytes())


def _environment() -> Environment:
    return Environment(
        machine=platform.machine(),
        system=platform.platform(),
        cpu=_hostinfo.cpu_model(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        governor=_hostinfo.governor(),
        clock_mhz=_hostinfo.clock_mhz(),
        temperature_celsius=_hostinfo.temperature_celsius(),
        python=platform.python_version(),
    )


def _summary(
    artifact: Artifact,
    timing: Timing,
    device: str,
    threads: int,
    warmup: int,
    started: datetime,
    environment: Environment,
) -> Measurement:
    seen = np.array(timing.milliseconds)
    low, middle, high, slow = np.quantile(seen, [0.25, 0.5, 0.75, 0.9])
    remarks = []
    if not timing.measurable:
        remarks.append(f"{timing.runtime} is a reference evaluator: its time says nothing about the device")
    spread = (high - low) / middle
    if spread > _WIDEST_SPREAD:
        remarks.append(f"too noisy to quote: the interquartile range is {spread:.0%} of the median")
    half = len(seen) // 2
    if half >= 4:
        first, second = median(seen[:half]), median(seen[half:])
        drift = abs(second - first) / min(first, second)
        if drift > _LARGEST_DRIFT:
            remarks.append(f"too unsteady to quote: the median moved by {drift:.0%} between the two halves")
    return Measurement(
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        precision=artifact.precision,
        device=device,
        runtime=timing.runtime,
        runtime_version=timing.runtime_version,
        threads=threads,
        warmup=warmup,
        runs=len(seen),
        median_ms=float(middle),
        p90_ms=float(slow),
        iqr_ms=float(high - low),
        min_ms=float(seen.min()),
        peak_memory_bytes=timing.peak_memory_bytes,
        stable=not remarks,
        remarks=tuple(remarks),
        measured_at=started,
        environment=environment,
    )
