"""Trials of plans: exported as they are, and measured beside the dense model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter
from torch import nn

from sekron_edge import cache, files
from sekron_edge._version import __version__
from sekron_edge.artifacts import Artifact, export, rounds
from sekron_edge.budget import Evidence
from sekron_edge.bundle import trial_evidence
from sekron_edge.measurement import Conditions, Measurement, this_machine
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._target import Target
from sekron_edge.planner import Calibration, Plan, decompose
from sekron_edge.pytrees import batches

# Trials measure the cost of a plan, which the scales of its activations do not change.
_TRIAL_CALIBRATION = 8
# The memory layout of a process changes its times by a percent or two, a busy neighbour by more.
_PROCESSES = 3
# What is slow varies little from run to run: so long is enough for the dense model's share of one process.
_MS_A_PROCESS, _MS_TO_WARM_UP = 5000.0, 1000.0
_FEWEST_RUNS, _FEWEST_TO_WARM_UP = 10, 2
_MEASUREMENTS = TypeAdapter(list[Measurement])


@dataclass(frozen=True)
class Trial:
    """A plan's artifact beside the dense one, before fine-tuning: time and size do not depend on the weights."""

    dense: Artifact
    artifact: Artifact
    dense_measured: Measurement | None = None
    measured: Measurement | None = None

    @property
    def evidence(self) -> Evidence:
        """The artifact's figures beside the dense one's."""
        return trial_evidence(self.dense, self.artifact, self.dense_measured, self.measured)

    def __str__(self) -> str:
        size = f"{self.artifact.size_bytes:,} bytes (dense {self.dense.size_bytes:,})"
        if self.artifact.arena is not None and self.dense.arena is not None:
            size += f", arena {self.artifact.arena.size_bytes:,} (dense {self.dense.arena.size_bytes:,})"
        if self.measured is None or self.dense_measured is None:
            return size
        return f"measured {self.measured.median_ms:.4g} ms (dense {self.dense_measured.median_ms:.4g}), {size}"


class Bench:
    """Exports candidates for the target; measures them beside the dense model where the target can be reached."""

    def __init__(self, job: Job, calibration: Calibration, work: Path) -> None:
        self._job = job
        self._target = job.target
        self._calibration = next(batches(calibration.inputs, _TRIAL_CALIBRATION))
        self._work = work
        self.dense = self._export(job.model, "dense")

    def measured_dense(self) -> Measurement | None:
        """Return the measurement of the dense artifact; None where the target is not reached."""
        target = self._target
        if not target.place.is_reached:
            return None
        measure = partial(target.place.open().measure, self.dense, target.conditions)
        (measured,) = self._remembered([self.dense], target.conditions, lambda: [measure()])
        return measured

    def trial(self, plan: Plan) -> Trial:
        """Export a plan with the weights as they were decomposed, and measure it."""
        artifact = self._export(decompose(self._job.model, plan), "trial")
        if not self._target.place.is_reached:
            return Trial(self.dense, artifact)
        dense = self.measured_dense()
        assert dense is not None
        conditions = _shortened(self._target.conditions, dense.median_ms)
        measure = partial(measure_pair, self.dense, artifact, self._target, conditions)
        pair = self._remembered([self.dense, artifact], conditions, lambda: list(measure()))
        return Trial(self.dense, artifact, *pair)

    def _remembered(
        self, artifacts: Sequence[Artifact], conditions: Conditions, measure: Callable[[], list[Measurement]]
    ) -> list[Measurement]:
        """Return stored measurements, or measure: plans rest on them, and the same job must plan the same."""
        versions = [sorted(artifact.versions.items()) for artifact in artifacts]
        hashes = [artifact.sha256 for artifact in artifacts]
        target = self._target
        where = this_machine().cpu_model if target.place.is_here else target.place.name
        how = (conditions.runs, conditions.warmup, target.threads, _PROCESSES)
        key = files.fingerprint(__version__, where, hashes, versions, *how)
        stored = files.cache_folder() / f"trial-{key}.json"
        return cache.cached(
            stored,
            read=lambda path: _MEASUREMENTS.validate_json(path.read_bytes()),
            make=measure,
            write=lambda measured, path: path.write_bytes(_MEASUREMENTS.dump_json(measured)),
        )

    def _export(self, model: nn.Module, name: str) -> Artifact:
        target = self._target
        return export(
            model,
            self._job.example_inputs,
            format=target.runtime,
            precision=target.precision,
            out=self._work,
            name=name,
            calibration=self._calibration,
            keep_float=self._job.quantization.named_floats if rounds(target.precision) else (),
        )


def _shortened(conditions: Conditions, dense_ms: float) -> Conditions:
    """Return conditions with no more runs than the dense model needs; no more than were asked for."""
    runs = max(_FEWEST_RUNS, int(_MS_A_PROCESS / dense_ms))
    warmup = max(_FEWEST_TO_WARM_UP, int(_MS_TO_WARM_UP / dense_ms))
    return replace(conditions, runs=min(conditions.runs, runs), warmup=min(conditions.warmup, warmup))


def measure_pair(
    dense: Artifact, artifact: Artifact, target: Target, conditions: Conditions
) -> tuple[Measurement, Measurement]:
    """Time two artifacts in turn, so that their ratio holds; then read the memory of each by itself.

    They are timed in several processes, and the one whose ratio is in the middle counts.
    """
    device = target.place.open()
    timed = [device.measure_together([dense, artifact], conditions) for _ in range(_PROCESSES)]
    middle = sorted(timed, key=_ratio)[_PROCESSES // 2]
    short = Conditions(runs=4, warmup=1, threads=target.threads)
    alone = [device.measure(one, short) for one in (dense, artifact)]
    first, second = (
        one.model_copy(update={"peak_memory_bytes": other.peak_memory_bytes})
        for one, other in zip(middle, alone, strict=True)
    )
    return first, second


def _ratio(pair: Sequence[Measurement]) -> float:
    dense, other = pair
    return other.median_ms / dense.median_ms
