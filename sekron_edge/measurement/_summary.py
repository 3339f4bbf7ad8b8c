"""From single runs to a measurement: its quantiles, and whether they may be quoted."""

from __future__ import annotations

from datetime import datetime
from statistics import median

import numpy as np

from sekron_edge.artifacts import Artifact
from sekron_edge.measurement._hostinfo import HostInfo
from sekron_edge.measurement._load import load_between
from sekron_edge.measurement._protocol import Answer, MeasurementRequest, Timing
from sekron_edge.measurement._records import Environment, Load, Measurement

# A spread above the first, or a drift above the second, is too much to quote a median.
_WIDEST_SPREAD = 0.25
_LARGEST_DRIFT = 0.15
_LEAST_HALF = 4  # runs, which fewer would say little about
# A clock that fell below this share, while runs grew slower, was lowered and not merely idle.
_LOWERED_CLOCK = 0.9
_SLOWED = 1.05
# A runner that did not have its core for more of the time than this may have been slower by as much. Runs that are
# shorter than a turn on a core, some milliseconds, fall between two interruptions: their median does not see any.
_MOST_DISTURBED, _INTERRUPTED_MS = 0.1, 1.0


def environment(answer: Answer) -> Environment:
    """Return where an answer is from."""
    before, after = HostInfo(answer.before), HostInfo(answer.after)
    return Environment(
        machine=answer.machine,
        system=answer.system,
        cpu=before.cpu_model,
        cores=answer.cores if answer.affinity is None else len(answer.affinity),
        governor=before.governor,
        clock_mhz=before.clock_mhz,
        clock_after_mhz=after.clock_mhz,
        temperature_celsius=before.temperature_celsius,
        temperature_after_celsius=after.temperature_celsius,
        python=answer.python,
    )


def summary(
    artifact: Artifact,
    timing: Timing,
    *,
    request: MeasurementRequest,
    answer: Answer,
    device: str,
    emulated: bool,
    started: datetime,
) -> Measurement:
    """Sum up the runs of one artifact."""
    seen = np.array(timing.milliseconds)
    low, middle, high, slow = np.quantile(seen, [0.25, 0.5, 0.75, 0.9])
    throttled = _throttled(answer, timing)
    emulated = emulated or (answer.machine not in ("x86_64", "i686", "AMD64") and HostInfo(answer.before).is_x86)
    load = load_between(answer.before, answer.after)
    remarks = _doubts(timing)
    if middle >= _INTERRUPTED_MS:
        remarks += _disturbances(load)
    if throttled:
        remarks.append("throttled: the device held its clock down while it ran; let it cool, and measure again")
    if emulated:
        remarks.append("emulated: its time says nothing about the device")
    return Measurement(
        artifact_name=artifact.path.name,
        artifact_sha256=artifact.sha256,
        format=artifact.format,
        precision=artifact.precision,
        device=device,
        runtime=timing.runtime,
        runtime_version=timing.runtime_version,
        threads=request.conditions.threads,
        affinity=request.conditions.affinity or answer.pinned or None,
        affinity_by_device=not request.conditions.affinity and bool(answer.pinned),
        compute_units=timing.compute_units,
        timed=timing.timed,
        warmup=request.conditions.warmup,
        averaged=timing.averaged,
        runs=len(seen) * timing.averaged,
        median_ms=float(middle),
        p90_ms=float(slow) if timing.averaged == 1 else None,
        iqr_ms=float(high - low) if timing.averaged == 1 else None,
        min_ms=float(seen.min()),
        peak_memory_bytes=timing.peak_memory_bytes,
        stable=not remarks,
        throttled=throttled,
        emulated=emulated,
        remarks=tuple(remarks),
        load=load,
        operators=timing.operators,
        measured_at=started,
        environment=environment(answer),
    )


def _doubts(timing: Timing) -> list[str]:
    """Return why the median of these runs should not be quoted."""
    seen = timing.milliseconds
    remarks = []
    if not timing.measurable:
        remarks.append(f"{timing.runtime} is a reference evaluator: its time says nothing about the device")
    if not timing.settled:
        remarks.append("too unsteady to quote: the times did not settle while warming up")
    low, middle, high = np.quantile(seen, [0.25, 0.5, 0.75])
    spread = (high - low) / middle
    if spread > _WIDEST_SPREAD:
        remarks.append(f"too noisy to quote: the interquartile range is {spread:.0%} of the median")
    half = len(seen) // 2
    if half * timing.averaged >= _LEAST_HALF:
        first, second = median(seen[:half]), median(seen[half:])
        drift = abs(second - first) / min(first, second)
        if drift > _LARGEST_DRIFT:
            remarks.append(f"too unsteady to quote: the median moved by {drift:.0%} between the two halves")
    return remarks


def _disturbances(load: Load | None) -> list[str]:
    """Return what kept the runner from its core."""
    remarks = []
    if load is not None and load.waited is not None and load.waited > _MOST_DISTURBED:
        remarks.append(f"disturbed: it waited for a core in {load.waited:.0%} of its time; end what else runs there")
    if load is not None and load.stolen is not None and load.stolen > _MOST_DISTURBED:
        remarks.append(f"disturbed: other virtual machines had its cores in {load.stolen:.0%} of its time")
    return remarks


def _throttled(answer: Answer, timing: Timing) -> bool:
    """Say whether the device lowered its clock: it says so, or the clock fell and runs grew slower."""
    before, after = HostInfo(answer.before), HostInfo(answer.after)
    if after.throttles > before.throttles or before.is_slowed or after.is_slowed:
        return True
    seen = timing.milliseconds
    third = max(1, len(seen) // 3)
    slowed = median(seen[-third:]) > _SLOWED * median(seen[:third])
    if before.clock_mhz is None or after.clock_mhz is None:
        return False
    return slowed and after.clock_mhz < _LOWERED_CLOCK * before.clock_mhz
