"""From a model to a plan that its exported, measured artifact keeps: score, solve, export, measure, correct."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sekron_edge.artifacts import Artifact, Precision, export
from sekron_edge.devices import LatencyModel, LocalDevice, Measurement
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.planner import Budget, Limit, ModelScores, Plan, decompose, measure_sensitivity, score
from sekron_edge.task import Task
from sekron_edge.training import reestimate_batch_norm

_ROUNDS = 4
_MARGIN = 1.02
_SENSITIVITY_SAMPLES = 256


@dataclass(frozen=True)
class Target:
    """Where the model is to run: profile, the runtime that is budgeted, its precision and threads."""

    profile: str
    runtime: str
    precision: Precision
    threads: int
    runs: int


def calibration_batch(task: Task, samples: int) -> tuple[Tensor, Tensor]:
    """Return up to so many calibration samples as one batch of inputs and targets."""
    from sekron_edge.data import collate

    count = min(samples, len(task.calibration))  # type: ignore[arg-type]
    return collate([task.calibration[index] for index in range(count)])


def score_for(
    model: nn.Module, task: Task, latency: LatencyModel, target: Target, say: Callable[[str], None]
) -> ModelScores:
    """Score a model's candidates, and measure each layer's sensitivity on calibration data."""
    inputs, _ = calibration_batch(task, _SENSITIVITY_SAMPLES)
    scores = score(model, (inputs[:1],), latency, precision=target.precision)
    considered = sum(layer.considered for layer in scores.layers)
    say(f"scored {considered:,} candidates of {len(scores.layers)} layers; latency {latency.source}")
    scores = measure_sensitivity(
        model,
        scores,
        (inputs,),
        divergence=task.distillation,
        settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
    )
    say(f"measured the sensitivity of each layer on {len(inputs)} calibration samples")
    return scores


@dataclass(frozen=True)
class Trial:
    """A plan's artifact against the dense one, before fine-tuning: weights change nothing about time and size."""

    dense: Artifact
    artifact: Artifact
    dense_measured: Measurement
    measured: Measurement

    def exceeded(self, budget: Budget) -> dict[str, float]:
        """Return the budget's entries that are not kept, each as found over allowed."""
        found = {}
        if budget.latency_ms is not None:
            found["latency_ms"] = self.measured.median_ms / budget.latency_ms.absolute(self.dense_measured.median_ms)
        if budget.artifact_bytes is not None:
            allowed = budget.artifact_bytes.absolute(self.dense.size_bytes)
            found["artifact_bytes"] = self.artifact.size_bytes / allowed
        return {entry: ratio for entry, ratio in found.items() if ratio > 1}


def plan_for(
    model: nn.Module,
    example: tuple[Tensor, ...],
    scores: ModelScores,
    budget: Budget,
    target: Target,
    *,
    work: Path,
    seed: int,
    say: Callable[[str], None],
) -> Plan:
    """Solve, export, measure; where the artifact misses a budget, correct the scores by it and solve again.

    Args:
        model: The original.
        example: Inputs, whose shapes become the artifact's.
        scores: Of that model.
        budget: What the artifact must keep; relative entries are of the dense artifact, measured here.
        target: Where it runs.
        work: Folder for the artifacts of the rounds.
        seed: Recorded in the plan.
        say: Told what happens.

    Raises:
        InfeasibleBudgetError: If no plan keeps the budget, as predicted or, after some rounds, as measured.
    """
    device = LocalDevice()

    def exported(candidate: nn.Module, name: str) -> Artifact:
        return export(candidate, example, format=target.runtime, precision=target.precision, out=work, name=name)

    dense = exported(model, "dense")
    before = device.measure(dense, runs=target.runs, threads=target.threads)
    predicted = scores.dense
    scores = scores.corrected(
        latency=before.median_ms / predicted.latency_ms,
        extra_bytes=dense.size_bytes - predicted.artifact_bytes,
        source=f"times {before.median_ms / predicted.latency_ms:.3g}, since the dense model was measured",
    )
    absolute = _absolute(budget, scores)
    trial = None
    for attempt in range(_ROUNDS):
        plan = scores.plan(absolute, profile=target.profile, runtime=target.runtime, seed=seed)
        small = exported(decompose(model, plan), "trial")
        dense_measured, measured = device.measure_together([dense, small], runs=target.runs, threads=target.threads)
        trial = Trial(dense, small, dense_measured, measured)
        exceeded = trial.exceeded(budget)
        say(
            f"plan {attempt + 1}: measured {measured.median_ms:.4g} ms (dense {dense_measured.median_ms:.4g}), "
            f"{small.size_bytes:,} bytes (dense {dense.size_bytes:,})"
        )
        if not exceeded:
            return plan
        ratio = measured.median_ms / dense_measured.median_ms * scores.dense.latency_ms / plan.cost.latency_ms
        absolute = _tightened(absolute, exceeded)
        scores = scores.corrected(
            latency=1.0, extra_bytes=0.0, source=f"plan {attempt + 1} was measured at {ratio:.3g} times its prediction"
        )
    assert trial is not None
    nearest = {"latency_ms": trial.measured.median_ms, "artifact_bytes": float(trial.artifact.size_bytes)}
    raise InfeasibleBudgetError(
        f"after {_ROUNDS} plans the measured artifact still exceeds {', '.join(exceeded)}; the nearest is "
        f"{nearest['latency_ms']:.4g} ms and {nearest['artifact_bytes']:.0f} bytes (dense: "
        f"{trial.dense_measured.median_ms:.4g} ms, {trial.dense.size_bytes} bytes). Raise that budget.",
        binding=list(exceeded),
        nearest=[nearest],
    )


def _absolute(budget: Budget, scores: ModelScores) -> Budget:
    """Return the budget with latency and bytes in absolute figures of the measured dense artifact."""
    limits = {
        entry: Limit(value=limit.absolute(float(getattr(scores.dense, entry))))
        for entry in ("latency_ms", "artifact_bytes")
        if (limit := getattr(budget, entry)) is not None
    }
    return budget.model_copy(update=limits)


def _tightened(budget: Budget, exceeded: dict[str, float]) -> Budget:
    """Ask for as much less as the measurement was more."""
    limits = {entry: Limit(value=getattr(budget, entry).value / (ratio * _MARGIN)) for entry, ratio in exceeded.items()}
    return budget.model_copy(update=limits)
