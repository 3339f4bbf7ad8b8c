"""Scoring with what the task offers: data-aware errors, and each layer's sensitivity; kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

import sekron_edge
from sekron_edge import files
from sekron_edge.budget import further_resources
from sekron_edge.data import collate
from sekron_edge.latency import LatencyModel
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._target import Target
from sekron_edge.planner import (
    Calibration,
    ModelScores,
    PlanEvaluator,
    Pricing,
    added_families,
    measure_sensitivity,
    score_for_all,
    with_sensitivity_of,
)
from sekron_edge.task import Task
from sekron_edge.training import reestimate_batch_norm

_SAMPLES = 256
# Plans are compared on more: whole models differ by less than layers do.
_EVALUATED = 1024
# Raised when the same inputs score differently.
_SCORING = 5


def calibration_inputs(task: Task, samples: int = _SAMPLES) -> Tensor:
    """Return up to so many calibration inputs as one batch."""
    count = min(samples, len(task.calibration))  # type: ignore[arg-type]
    inputs, _ = collate([task.calibration[index] for index in range(count)])
    return inputs


def calibration_for(model: nn.Module, task: Task) -> Calibration:
    """Return what a model is calibrated on: the task's calibration inputs, collated once."""
    return Calibration(model, (calibration_inputs(task),))


def evaluator_for(calibration: Calibration, task: Task) -> PlanEvaluator:
    """Return what chooses among whole plans: on the task's calibration data, up to 1024 samples of it."""
    return PlanEvaluator(
        calibration,
        divergence=task.divergence or task.distillation,
        settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
        evaluated_on=(calibration_inputs(task, _EVALUATED),),
    )


def scores_for(
    calibration: Calibration,
    example_inputs: tuple[Tensor, ...],
    task: Task,
    targets: Sequence[Target],
    latencies: Sequence[LatencyModel],
    *,
    progress: Progress,
    cache: Path | None = None,
) -> list[ModelScores]:
    """Score a model's candidates for each target, and measure each layer's sensitivity on calibration data.

    What does not depend on the target is found once for all. The scores are kept: another budget for the same model,
    data and latency model is solved without scoring again.

    Args:
        calibration: Of the model.
        example_inputs: Their shapes become the artifact's.
        task: Says how far outputs diverge.
        targets: Whose precisions and files are priced.
        latencies: The latency model of each target.
        progress: Receives what is reported.
        cache: Folder of scores; by default that of all results.
    """
    folder = cache or files.cache_folder()
    stored = [
        folder / f"scores-{_key(calibration, example_inputs, target, latency)}.json"
        for target, latency in zip(targets, latencies, strict=True)
    ]
    known = {path: scores for path in stored if (scores := _stored_scores(path, progress)) is not None}
    absent = {
        path: Pricing(latency, target.precision, target.file_costs)
        for path, target, latency in zip(stored, targets, latencies, strict=True)
        if path not in known
    }
    if absent:
        scored = _scored(calibration, example_inputs, list(absent.values()), progress)
        sensitive = next(iter(known.values()), None) or _with_sensitivity(scored[0], calibration, task, progress)
        for path, scores in zip(absent, scored, strict=True):
            known[path] = with_sensitivity_of(scores, sensitive)
            files.write_text(path, known[path].model_dump_json())
    return [known[path] for path in stored]


def _scored(
    calibration: Calibration, example_inputs: tuple[Tensor, ...], prices: Sequence[Pricing], progress: Progress
) -> list[ModelScores]:
    with progress.busy("scoring the candidates of every layer"):
        scored = score_for_all(calibration.model, example_inputs, prices, calibration=calibration)
    layers = scored[0].layers
    considered = sum(layer.considered for layer in layers)
    kept = sum(len(layer.candidates) for layer in layers)
    progress.say(f"scored {considered:,} candidates of {len(layers)} layers, {kept:,} of them not dominated")
    return scored


def _with_sensitivity(scores: ModelScores, calibration: Calibration, task: Task, progress: Progress) -> ModelScores:
    return measure_sensitivity(
        scores,
        calibration,
        divergence=task.distillation,
        settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
        progress=lambda done, total: progress.step("measuring sensitivity", done, total),
    )


def _key(calibration: Calibration, example_inputs: tuple[Tensor, ...], target: Target, latency: LatencyModel) -> str:
    (inputs,) = calibration.inputs
    return files.fingerprint(
        sekron_edge.__version__,
        _SCORING,
        state_fingerprint(calibration.model),
        [tuple(value.shape) for value in example_inputs],
        inputs.numpy().tobytes(),
        latency.model_dump_json(),
        target.precision,
        asdict(target.file_costs),
        *further_resources(),  # candidates are counted and kept for them
        *added_families(),
    )


def _stored_scores(path: Path, progress: Progress) -> ModelScores | None:
    if not path.is_file():
        return None
    try:
        scores = ModelScores.model_validate_json(path.read_bytes())
    except ValidationError:
        progress.say(f"{path} is of another release: scoring anew")
        return None
    progress.say(f"scores of this model are in the cache: {path}")
    return scores
