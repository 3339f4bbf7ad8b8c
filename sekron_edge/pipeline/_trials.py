"""Trials of plans: exported as they are, and measured beside the dense model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from sekron_edge import cache, files
from sekron_edge._version import __version__
from sekron_edge.artifacts import Artifact, export, rounds
from sekron_edge.budget import Evidence, Limit
from sekron_edge.bundle import trial_evidence
from sekron_edge.measurement import Conditions, MeasuredPair, Measurement, measure_pair, this_machine
from sekron_edge.pipeline._job import Job
from sekron_edge.planner import Calibration, Plan, decompose
from sekron_edge.pytrees import batches

# Trials measure the cost of a plan, which the scales of its activations do not change.
_TRIAL_CALIBRATION = 8
# What is slow varies little from run to run: so long is enough for the dense model's share of one process.
_MS_A_PROCESS, _MS_TO_WARM_UP = 5000.0, 1000.0
_FEWEST_RUNS, _FEWEST_TO_WARM_UP = 10, 2
# Where memory lies differs from process to process, and with it the time, by a third in small models: the fastest of so
# many counts, as the fastest round does in calibrations.
_PROCESSES = 3
# Raised when measurements are stored in another form.
_STORED = 3


@dataclass(frozen=True)
class Trial:
    """A plan's artifact beside the dense one, before fine-tuning: time and size do not depend on the weights.

    Attributes:
        dense: The dense artifact.
        artifact: The plan's.
        limit: Of the artifact's latency, if the budget has one.
        pair: Both, measured; None where the target is not reached.
    """

    dense: Artifact
    artifact: Artifact
    limit: Limit | None = None
    pair: MeasuredPair | None = None

    @property
    def evidence(self) -> Evidence:
        """The artifact's figures beside the dense one's."""
        before, after = (None, None) if self.pair is None else self.pair.shown(self.limit)
        return trial_evidence(self.dense, self.artifact, before, after)

    @property
    def ratio(self) -> float | None:
        """The artifact's latency over the dense one's; None if they were not measured."""
        if self.pair is None:
            return None
        times = self.pair.times
        return times.ratios[times.middle(self.limit)]

    @property
    def is_decided(self) -> bool:
        """Whether there is no doubt on which side of its limit the latency is; there is none without either."""
        return self.pair is None or self.limit is None or self.pair.times.decide(self.limit)

    def __str__(self) -> str:
        size = f"{self.artifact.size_bytes:,} bytes (dense {self.dense.size_bytes:,})"
        if self.artifact.arena is not None and self.dense.arena is not None:
            size += f", arena {self.artifact.arena.size_bytes:,} (dense {self.dense.arena.size_bytes:,})"
        if self.pair is None:
            return size
        before, after = self.pair.shown(self.limit)
        spread = self.pair.times.said(self.limit)
        return f"measured {after.median_ms:.4g} ms (dense {before.median_ms:.4g}; {spread}), {size}"


class Bench:
    """Exports candidates for the target; measures them beside the dense model where the target can be reached."""

    def __init__(self, job: Job, calibration: Calibration, work: Path) -> None:
        self._job = job
        self._target = job.target
        self._calibration = next(batches(calibration.inputs, _TRIAL_CALIBRATION))
        self._work = work
        self.dense = self._export(job.model, "dense")
        self._dense_measured: Measurement | None = None

    def measured_dense(self) -> Measurement | None:
        """Return the measurement of the dense artifact in its fastest process; None where the target is not reached.

        A stored one counts if it was steady, or if nothing steadier can be had now: plans rest on it, and the same job
        must plan the same.
        """
        if self._dense_measured is None and self._target.place.is_reached:
            self._dense_measured = self._measured_dense()
        return self._dense_measured

    def _measured_dense(self) -> Measurement:
        target = self._target
        stored = self._stored(target.conditions, self.dense)
        known = cache.known(stored, lambda path: Measurement.model_validate_json(path.read_bytes()))
        if known is not None and (known.stable or known.emulated):
            return known
        device = target.place.open()
        found = [] if known is None else [known]
        for _ in range(_PROCESSES):
            found.append(device.measure(self.dense, target.conditions))
            if found[-1].emulated:
                break
        measured = min([one for one in found if one.stable] or found, key=lambda one: one.median_ms)
        cache.keep_text(stored, measured.model_dump_json())
        return measured

    def trial(self, plan: Plan) -> Trial:
        """Export a plan with the weights as they were decomposed, and measure it.

        Stored processes count if they were steady; where they do not decide on the budget of this job, more are run.
        """
        artifact = self._export(decompose(self._job.model, plan), "trial")
        limit = self._job.budget.latency_ms
        dense = self.measured_dense()
        if dense is None:
            return Trial(self.dense, artifact, limit)
        conditions = _shortened(self._target.conditions, dense.median_ms)
        stored = self._stored(conditions, self.dense, artifact)
        known = cache.known(stored, lambda path: MeasuredPair.model_validate_json(path.read_bytes()))
        device = self._target.place.open()
        pair = measure_pair(device, self.dense, artifact, conditions, limit=limit, known=known)
        if pair != known:
            cache.keep_text(stored, pair.model_dump_json())
        return Trial(self.dense, artifact, limit, pair)

    def _stored(self, conditions: Conditions, *artifacts: Artifact) -> Path:
        """Return where measurements of artifacts are kept."""
        versions = [sorted(artifact.versions.items()) for artifact in artifacts]
        hashes = [artifact.sha256 for artifact in artifacts]
        target = self._target
        where = this_machine().cpu_model if target.place.is_here else target.place.name
        how = (conditions.runs, conditions.warmup, target.threads, _STORED)
        key = files.fingerprint(__version__, where, hashes, versions, *how)
        return files.cache_folder() / f"trial-{key}.json"

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
