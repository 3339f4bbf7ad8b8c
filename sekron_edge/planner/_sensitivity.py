"""Errors become loss: how much each layer's error changes the model's output, measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sekron_edge.nn import approximate_layers, layer_weight
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._errors import sweeps_for_outputs
from sekron_edge.planner._scoring import ModelScores
from sekron_edge.pytrees import Inputs, Outputs, batches, call, concatenated

# The tried candidate has at most this share of the dense layer's MACs.
_SHARE = 0.5
_LEAST_SLOPE = 1e-9
# Errors up to here are hardly more than rounding: with few samples, factors may fit a layer's inputs exactly.
_ROUNDING = 1e-4


def measure_sensitivity(
    scores: ModelScores,
    calibration: Calibration,
    *,
    divergence: Callable[[Outputs, Outputs], Tensor],
    settle: Callable[[nn.Module], nn.Module] = lambda model: model,
    evaluated_on: Inputs | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Replace each candidate's predicted loss by ``slope * relative_error^2``, the slope measured layer by layer.

    One layer at a time becomes the best of its candidates with half the MACs. The divergence of the outputs from the
    original's gives the slope.

    Args:
        scores: Of the calibration's model.
        calibration: Divergences are measured on its inputs.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        settle: Applied to a rewritten model before it is compared (batch-norm statistics computed again).
        evaluated_on: Inputs that divergences are measured on; by default the calibration's.
        progress: Called with the number of finished layers, and of all layers.
    """
    inputs = calibration.inputs if evaluated_on is None else evaluated_on

    def outputs(model: nn.Module) -> Outputs:
        with torch.inference_mode():
            return concatenated([call(model, batch) for batch in batches(inputs, calibration.at_once)])

    reference = outputs(calibration.model)

    def diverged(near: nn.Module) -> float:
        return float(divergence(outputs(settle(near).eval()), reference))

    moments = calibration.moments([layer.name for layer in scores.layers if _tried(layer)])
    measured = []
    for done, layer in enumerate(scores.layers):
        slope = _slope(calibration.model, layer, moments.get(layer.name), diverged)
        measured.append(_with_slope(layer, slope))
        if progress is not None:
            progress(done + 1, len(scores.layers))
    return scores.model_copy(update={"layers": tuple(measured)})


def with_sensitivity_of(scores: ModelScores, measured: ModelScores) -> ModelScores:
    """Price errors by slopes that were measured with scores of the same model for another target."""
    slopes = [
        max((c.predicted_loss / c.relative_error**2 for c in layer.candidates if c.relative_error > 0), default=0.0)
        for layer in measured.layers
    ]
    layers = [_with_slope(layer, slope) for layer, slope in zip(scores.layers, slopes, strict=True)]
    return scores.model_copy(update={"layers": tuple(layers)})


def _slope(
    model: nn.Module, layer: LayerScores, moment: Tensor | None, diverged: Callable[[nn.Module], float]
) -> float:
    """Return the divergence per squared relative error of a layer, measured with one of its candidates."""
    tried = _tried(layer)
    if tried is None:
        return 0.0
    assert tried.structure is not None
    # Decomposed as it was scored, so that the slope fits the error that it was given.
    sweeps = sweeps_for_outputs(layer_weight(model.get_submodule(layer.name)))
    moments = {layer.name: moment} if moment is not None and sweeps else None
    near = approximate_layers(model, {layer.name: tried.structure}, moments=moments, sweeps=sweeps if moments else None)
    return max(diverged(near), _LEAST_SLOPE) / tried.relative_error**2


def _tried(layer: LayerScores) -> Candidate | None:
    """Return the candidate of least error among those with half the MACs at most, or the one with the fewest MACs."""
    offered = [candidate for candidate in layer.candidates if candidate.relative_error > _ROUNDING]
    half = _SHARE * layer.candidates[0].cost.macs
    small = [candidate for candidate in offered if candidate.cost.macs <= half]
    if small:
        return min(small, key=lambda candidate: candidate.relative_error)
    return min(offered, key=lambda candidate: candidate.cost.macs, default=None)


def _with_slope(layer: LayerScores, slope: float) -> LayerScores:
    def priced(candidate: Candidate) -> Candidate:
        return candidate.model_copy(update={"predicted_loss": slope * candidate.relative_error**2})

    return layer.model_copy(update={"candidates": tuple(map(priced, layer.candidates))})
