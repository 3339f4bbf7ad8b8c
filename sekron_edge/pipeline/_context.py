"""The basis of plans for any budget: a calibrated latency model, scores, and an evaluator of plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import Budget
from sekron_edge.data import batch_of
from sekron_edge.measurement import Measurement
from sekron_edge.nn import unmerged_blocks
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._latency import latency_model_of
from sekron_edge.pipeline._noise import LEAST_SNR_DB
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._samples import calibration_inputs
from sekron_edge.pipeline._scores import scores_for, settling
from sekron_edge.pipeline._trials import Bench
from sekron_edge.planner import Calibration, ModelScores, Plan, PlanEvaluator, Rounding
from sekron_edge.pytrees import Outputs, tensors
from sekron_edge.quantization import simulated
from sekron_edge.task import Task
from sekron_edge.verification import compare

# Plans are compared on more samples than factors are refined for, because whole models differ by less than layers.
_EVALUATED_SAMPLES = 1024


@dataclass(frozen=True)
class PlanningContext:
    """The basis of all plans of one job.

    Attributes:
        job: Plans are for its target.
        calibration: Of the job's model.
        scores: Of that model, for the target.
        evaluator: Of that model; chooses among the plans that keep a budget as predicted.
    """

    job: Job
    calibration: Calibration
    scores: ModelScores
    evaluator: PlanEvaluator

    def anchored(self, work: Path, progress: Progress) -> tuple[Bench, ModelScores]:
        """Export the dense model, measure it where possible, and correct the scores by it."""
        with progress.busy(f"exporting the dense model to {self.job.target.runtime}"):
            bench = Bench(self.job, self.calibration, work)
            return bench, _anchored(self.scores, bench.dense, bench.measured_dense())

    def plan(self, scores: ModelScores, budget: Budget) -> Plan:
        """Return the best plan that is predicted to keep a budget, from scores that may be corrected.

        Raises:
            InfeasibleBudgetError: If there is none.
        """
        target = self.job.target
        return self.evaluator.plan(
            scores, budget, profile=target.profile.id, runtime=target.runtime, seed=self.job.seed
        )

    def exchanged(self, scores: ModelScores, plan: Plan) -> tuple[Plan, ModelScores]:
        """Return the plan, or one that diverges less by exchanges; and the scores, with losses measured around it."""
        return self.evaluator.exchanged(scores, plan)


def contexts_for(jobs: Sequence[Job], progress: Progress) -> list[PlanningContext]:
    """Calibrate, score and measure sensitivities, once for jobs that differ only in their target.

    Args:
        jobs: At least one.
        progress: Receives the reports.

    Raises:
        DeviceError: If a device cannot be calibrated.
        UnsupportedLayerError: If a layer's weights are not finite.
    """
    hint = unmerged_blocks(jobs[0].model)
    if hint is not None:
        progress.say(str(hint))
    places = ", ".join(sorted({str(job.target.place) for job in jobs}))
    with progress.busy(f"calibrating the latency model, once for {places}"):
        latencies = [latency_model_of(job.target) for job in jobs]
    for latency in latencies:
        progress.say(f"latency model: {latency.source}")
    calibration = Calibration(jobs[0].model, jobs[0].calibration_inputs)
    scores = scores_for(jobs, calibration, latencies, progress=progress)
    roundings = {job.target.precision: rounding_of(job) for job in jobs}
    evaluators = {
        precision: evaluator_for(calibration, jobs[0].task, rounding) for precision, rounding in roundings.items()
    }
    return [
        PlanningContext(job, calibration, own, evaluators[job.target.precision])
        for job, own in zip(jobs, scores, strict=True)
    ]


def rounding_of(job: Job) -> Rounding | None:
    """Return how the budgeted artifact of a job is rounded; None if it computes in floats."""
    if job.target.precision != "int8":
        return None
    rounded = partial(simulated, calibration=job.calibration_inputs, keep_float=job.quantization.named_floats)
    return Rounding(rounded, LEAST_SNR_DB)


def evaluator_for(calibration: Calibration, task: Task, rounding: Rounding | None = None) -> PlanEvaluator:
    """Return the evaluator that chooses among whole plans, on up to 1024 samples of the task's calibration data.

    Args:
        calibration: Of the original model.
        task: Its divergence judges, and its decisions are counted.
        rounding: Of the budgeted artifact, if it is rounded.
    """
    # Some plans for each limit, each with a pass for the statistics of batch norms and one for the outputs.
    passes = 16
    judged = calibration.affordable(passes, calibration_inputs(task, _EVALUATED_SAMPLES))
    return PlanEvaluator(
        calibration,
        divergence=task.divergence or task.distillation,
        settle=settling(calibration, task, judged),
        evaluated_on=judged,
        compared=partial(_compared, classes=_classes(task)),
        rounding=rounding,
    )


def _classes(task: Task) -> int | None:
    """Return the number of classes that outputs decide among; None where targets are no classes."""
    if not task.has_targets:
        return None
    _, target = batch_of(task.calibration, [0])
    return None if any(value.is_floating_point() for value in tensors(target)) else len(task.labels)


def _compared(outputs: Outputs, others: Outputs, *, classes: int | None) -> tuple[float, float | None]:
    pairs = ([value.numpy() for value in tensors(each)] for each in (others, outputs))
    comparison = compare(*pairs, classes=classes)
    return comparison.snr_db, comparison.agreement


def _anchored(scores: ModelScores, dense: Artifact, measured: Measurement | None) -> ModelScores:
    """Correct the scores by the dense artifact; time beyond the predictions of its layers counts as the rest."""
    predicted = scores.dense
    extra_bytes = dense.size_bytes - predicted.artifact_bytes
    if measured is None:
        return scores.corrected(source="bytes as in the dense artifact", extra_bytes=extra_bytes)
    beyond = measured.median_ms - predicted.latency_ms
    source = f"dense model measured at {measured.median_ms:.4g} ms, its layers predicted at {predicted.latency_ms:.4g}"
    if beyond >= 0:
        return scores.corrected(source=source, extra_ms=beyond, extra_bytes=extra_bytes)
    return scores.corrected(source=source, scale=measured.median_ms / predicted.latency_ms, extra_bytes=extra_bytes)
