"""Errors become loss: how much each layer's error moves the model's own output, measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sekron_edge.nn import approximate_layers
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._scoring import ModelScores

# The level of error that is tried: about what a plan at half the cost gives a layer.
_LEVEL = 0.35
_LEAST_SLOPE = 1e-9


def measure_sensitivity(
    model: nn.Module,
    scores: ModelScores,
    inputs: Sequence[Tensor],
    *,
    divergence: Callable[[Tensor, Tensor], Tensor],
    settle: Callable[[nn.Module], nn.Module] = lambda model: model,
    progress: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Replace each candidate's predicted loss by ``slope * relative_error^2``, the slope measured layer by layer.

    One layer at a time becomes its candidate of middle error; the divergence of the outputs from the original's gives
    the slope.

    Args:
        model: The original; left as it was.
        scores: Of that model.
        inputs: Calibration data, one tensor ``(batch, ...)`` an input of the model; never held-out data.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        settle: Applied to a rewritten model before it is judged (batch-norm statistics computed anew).
        progress: Called with the number of layers done, and of all.
    """
    with torch.inference_mode():
        reference = model(*inputs)
    measured = []
    for done, layer in enumerate(scores.layers):
        measured.append(_with_slope(layer, _slope(model, layer, inputs, reference, divergence, settle)))
        if progress is not None:
            progress(done + 1, len(scores.layers))
    return scores.model_copy(update={"layers": tuple(measured)})


def _slope(
    model: nn.Module,
    layer: LayerScores,
    inputs: Sequence[Tensor],
    reference: Tensor,
    divergence: Callable[[Tensor, Tensor], Tensor],
    settle: Callable[[nn.Module], nn.Module],
) -> float:
    tried = [candidate for candidate in layer.candidates if candidate.relative_error > 0]
    if not tried:
        return 0.0
    middle = min(tried, key=lambda candidate: abs(candidate.relative_error - _LEVEL))
    assert middle.structure is not None
    changed = settle(approximate_layers(model, {layer.name: middle.structure})).eval()
    with torch.inference_mode():
        moved = float(divergence(changed(*inputs), reference))
    return max(moved, _LEAST_SLOPE) / middle.relative_error**2


def _with_slope(layer: LayerScores, slope: float) -> LayerScores:
    def priced(candidate: Candidate) -> Candidate:
        return candidate.model_copy(update={"predicted_loss": slope * candidate.relative_error**2})

    return layer.model_copy(update={"candidates": tuple(map(priced, layer.candidates))})
