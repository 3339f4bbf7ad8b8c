"""Scoring with a task's data: errors of outputs and each layer's sensitivity; kept in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from torch import nn

from sekron_edge import cache, files
from sekron_edge._version import __version__
from sekron_edge.artifacts import rounds
from sekron_edge.budget import further_resources
from sekron_edge.latency import LatencyModel
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._latency import latency_model_of
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._progress import Progress
from sekron_edge.planner import (
    EVERY_LAYER,
    Calibration,
    InFloat,
    ModelScores,
    Pricing,
    added_families,
    measure_sensitivity,
    score_for_all,
    with_sensitivity_of,
)
from sekron_edge.pytrees import Inputs, batch_size, batches, tensors
from sekron_edge.task import Task
from sekron_edge.training import calibration_batches, reestimate_batch_norm

# Raised when the same inputs score differently.
_SCORING = 8


def scores_for(
    jobs: Sequence[Job],
    calibration: Calibration,
    latencies: Sequence[LatencyModel],
    *,
    progress: Progress,
    folder: Path | None = None,
) -> list[ModelScores]:
    """Score a model's candidates for the target of each job, and measure each layer's sensitivity on calibration data.

    Everything that does not depend on the target is computed once for all. The scores are kept: another budget for the
    same model, data and latency model is solved without scoring again.

    Args:
        jobs: They differ only in their target.
        calibration: Of their model.
        latencies: The latency model of each target.
        progress: Receives the reports.
        folder: Of scores; by default that of all results.
    """
    folder = folder or files.cache_folder()
    kept = [_in_float(job) for job in jobs]
    stored = [
        folder / f"scores-{_key(job, calibration, latency, in_float)}.json"
        for job, latency, in_float in zip(jobs, latencies, kept, strict=True)
    ]
    known = {path: scores for path in stored if (scores := _stored_scores(path, progress)) is not None}
    absent = {
        path: Pricing(latency, job.target.precision, job.target.file_costs, in_float)
        for path, job, latency, in_float in zip(stored, jobs, latencies, kept, strict=True)
        if path not in known
    }
    if absent:
        scored = _scored(jobs[0], calibration, list(absent.values()), progress)
        measured = next(iter(known.values()), None)
        measured = measured or _with_sensitivity(scored[0], calibration, jobs[0].task, progress)
        for path, scores in zip(absent, scored, strict=True):
            known[path] = with_sensitivity_of(scores, measured)
            cache.keep_text(path, known[path].model_dump_json())
    return [known[path] for path in stored]


def _in_float(job: Job) -> InFloat | None:
    """Return the prices of the layers that the job names to be kept in float; None if there are none."""
    named = job.quantization.named_floats
    if not named or not rounds(job.target.precision):
        return None
    floats = replace(job.target, precisions=("fp32",))
    prices = Pricing(latency_model_of(floats), "fp32", floats.file_costs, converted=True)
    return InFloat(frozenset(named), prices)


def _scored(job: Job, calibration: Calibration, prices: Sequence[Pricing], progress: Progress) -> list[ModelScores]:
    scored = score_for_all(
        job.model,
        job.example_inputs,
        prices,
        calibration=calibration,
        selection=job.selection,
        progress=lambda done, total: progress.step("scoring the candidates of every layer", done, total),
    )
    layers = scored[0].layers
    considered = sum(layer.considered for layer in layers)
    kept = sum(len(layer.candidates) for layer in layers)
    progress.say(f"scored {considered:,} candidates of {len(layers)} layers, {kept:,} of them not dominated")
    return scored


def _with_sensitivity(scores: ModelScores, calibration: Calibration, task: Task, progress: Progress) -> ModelScores:
    # A layer's trial takes the rest of a pass from the layer on: half a pass, on average.
    few = calibration.affordable(len(scores.layers) / 2)
    count, whole = batch_size(few), batch_size(calibration.inputs)
    if count < whole:
        progress.say(f"measuring sensitivity on {count} of {whole} calibration samples: more would take too long")
    return measure_sensitivity(
        scores,
        calibration,
        divergence=task.distillation,
        evaluated_on=few,
        progress=lambda done, total: progress.step("measuring sensitivity", done, total),
    )


def settling(calibration: Calibration, task: Task, inputs: Inputs) -> Callable[[nn.Module], nn.Module]:
    """Return what computes batch-norm statistics again: on all calibration samples, or on these if they are fewer."""
    if batch_size(inputs) < batch_size(calibration.inputs):
        return lambda changed: reestimate_batch_norm(changed, batches(inputs, calibration.at_once))
    return lambda changed: reestimate_batch_norm(changed, calibration_batches(task, size=min(256, calibration.at_once)))


def _key(job: Job, calibration: Calibration, latency: LatencyModel, in_float: InFloat | None) -> str:
    return files.fingerprint(
        __version__,
        _SCORING,
        state_fingerprint(job.model),
        [tuple(value.shape) for value in tensors(job.example_inputs)],
        [value.numpy().tobytes() for value in tensors(calibration.inputs)],
        latency.model_dump_json(),
        job.target.precision,
        asdict(job.target.file_costs),
        *further_resources(),  # candidates are counted and kept for them
        *added_families(),
        *([] if in_float is None else [sorted(in_float.layers), in_float.prices.cost_model.source]),
        *([] if job.selection == EVERY_LAYER else [job.selection.model_dump_json()]),
    )


def _stored_scores(path: Path, progress: Progress) -> ModelScores | None:
    scores = cache.known(path, lambda kept: ModelScores.model_validate_json(kept.read_bytes()))
    if scores is not None:
        progress.say(f"scores of this model are in the cache: {path}")
    return scores
