"""Scoring with what the task offers: data-aware errors, and each layer's sensitivity; kept in the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

import sekron_edge
from sekron_edge import files
from sekron_edge.data import collate
from sekron_edge.devices import LatencyModel
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._narrator import Narrator
from sekron_edge.planner import ModelScores, measure_sensitivity, score
from sekron_edge.primitives import FileCosts
from sekron_edge.task import Task
from sekron_edge.training import reestimate_batch_norm

_SAMPLES = 256
# Raised when the same inputs score differently.
_SCORING = 4


def calibration_inputs(task: Task, samples: int = _SAMPLES) -> Tensor:
    """Return up to so many calibration inputs as one batch."""
    count = min(samples, len(task.calibration))  # type: ignore[arg-type]
    inputs, _ = collate([task.calibration[index] for index in range(count)])
    return inputs


def score_for(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    task: Task,
    latency: LatencyModel,
    *,
    precision: str,
    file_costs: FileCosts,
    narrator: Narrator,
    cache: Path | None = None,
) -> ModelScores:
    """Score a model's candidates, and measure each layer's sensitivity on calibration data.

    The scores are kept: another budget for the same model, data and latency model is solved without scoring again.
    """
    inputs = calibration_inputs(task)
    key = files.fingerprint(
        sekron_edge.__version__,
        _SCORING,
        state_fingerprint(model),
        [tuple(value.shape) for value in example_inputs],
        inputs.numpy().tobytes(),
        latency.model_dump_json(),
        precision,
        asdict(file_costs),
    )
    stored = (cache or files.cache_folder()) / f"scores-{key}.json"
    if stored.is_file():
        try:
            found = ModelScores.model_validate_json(stored.read_bytes())
        except ValidationError:
            narrator.say(f"{stored} is of another release: scoring anew")
        else:
            narrator.say(f"scores of this model are in the cache: {stored}")
            return found
    with narrator.busy("scoring the candidates of every layer"):
        scores = score(
            model, example_inputs, latency, precision=precision, file_costs=file_costs, calibration=(inputs,)
        )
    considered = sum(layer.considered for layer in scores.layers)
    kept = sum(len(layer.candidates) for layer in scores.layers)
    narrator.say(f"scored {considered:,} candidates of {len(scores.layers)} layers, {kept:,} of them not dominated")
    scores = measure_sensitivity(
        model,
        scores,
        (inputs,),
        divergence=task.distillation,
        settle=lambda changed: reestimate_batch_norm(changed, task.calibration),
        progress=lambda done, total: narrator.step("measuring sensitivity", done, total),
    )
    files.write_text(stored, scores.model_dump_json())
    return scores
