"""Scoring with what the task offers: data-aware errors, and each layer's sensitivity; kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

import sekron_edge
from sekron_edge import files
from sekron_edge.data import collate
from sekron_edge.latency import LatencyModel
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._target import Target
from sekron_edge.planner import (
    ModelScores,
    PlanEvaluator,
    Pricing,
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


def evaluator_for(model: nn.Module, task: Task) -> PlanEvaluator:
    """Return what chooses among whole plans: on the task's calibration data, up to 1024 samples of it."""
    return PlanEvaluator(
        model,
        (calibration_inputs(task),),
        divergence=task.divergence or task.distillation,
        settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
        evaluated_on=(calibration_inputs(task, _EVALUATED),),
    )


def scores_for(
    model: nn.Module,
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
    """
    inputs = calibration_inputs(task)
    folder = cache or files.cache_folder()
    stored = [
        folder / f"scores-{_key(model, example_inputs, inputs, target, latency)}.json"
        for target, latency in zip(targets, latencies, strict=True)
    ]
    found = [_kept(path, progress) for path in stored]
    absent = [index for index, scores in enumerate(found) if scores is None]
    if absent:
        prices = [Pricing(latencies[i], targets[i].precision, targets[i].file_costs) for i in absent]
        with progress.busy("scoring the candidates of every layer"):
            made = score_for_all(model, example_inputs, prices, calibration=(inputs,))
        considered = sum(layer.considered for layer in made[0].layers)
        kept = sum(len(layer.candidates) for layer in made[0].layers)
        progress.say(
            f"scored {considered:,} candidates of {len(made[0].layers)} layers, {kept:,} of them not dominated"
        )
        measured = next((scores for scores in found if scores is not None), None) or measure_sensitivity(
            model,
            made[0],
            (inputs,),
            divergence=task.distillation,
            settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
            progress=lambda done, total: progress.step("measuring sensitivity", done, total),
        )
        for index, scores in zip(absent, made, strict=True):
            priced = with_sensitivity_of(scores, measured)
            files.write_text(stored[index], priced.model_dump_json())
            found[index] = priced
    return [scores for scores in found if scores is not None]


def _key(
    model: nn.Module, example_inputs: tuple[Tensor, ...], inputs: Tensor, target: Target, latency: LatencyModel
) -> str:
    return files.fingerprint(
        sekron_edge.__version__,
        _SCORING,
        state_fingerprint(model),
        [tuple(value.shape) for value in example_inputs],
        inputs.numpy().tobytes(),
        latency.model_dump_json(),
        target.precision,
        asdict(target.file_costs),
    )


def _kept(stored: Path, progress: Progress) -> ModelScores | None:
    if not stored.is_file():
        return None
    try:
        found = ModelScores.model_validate_json(stored.read_bytes())
    except ValidationError:
        progress.say(f"{stored} is of another release: scoring anew")
        return None
    progress.say(f"scores of this model are in the cache: {stored}")
    return found
