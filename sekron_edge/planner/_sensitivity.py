"""Errors become loss: how much each layer's error changes the model's output, measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from torch import Tensor, nn

from sekron_edge.nn import BranchedRuns, approximate_weight, layer_weight
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._errors import sweeps_for_outputs
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.pytrees import Inputs, Outputs, batch_size, batches

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
    evaluated_on: Inputs | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelScores:
    """Replace each candidate's predicted loss by ``slope * relative_error^2``, the slope measured layer by layer.

    One layer at a time becomes the best of its candidates with half the MACs. The divergence of the outputs from the
    original's gives the slope. Batch norms use the statistics of the batch, for both (`sekron_edge.nn.BranchedRuns`):
    with few samples the difference to the statistics of training would otherwise count as every layer's.

    Args:
        scores: Of the calibration's model.
        calibration: Divergences are measured on its inputs.
        divergence: ``(outputs, original outputs) -> scalar``, not negative; its mean over batches counts.
        evaluated_on: Inputs that divergences are measured on; by default the calibration's.
        progress: Called with the number of finished layers, and of all layers.

    Raises:
        ExportError: If the model cannot be traced.
    """
    tried = {layer.name: candidate for layer in scores.layers if (candidate := _tried(layer)) is not None}
    moments = calibration.moments(tried)
    nears = {
        name: cache(partial(_near_weight, calibration.model, name, candidate, moments.get(name)))
        for name, candidate in tried.items()
    }
    pieces = _even_batches(calibration.inputs if evaluated_on is None else evaluated_on, calibration.at_once)
    diverged = dict.fromkeys(tried, 0.0)
    done = 0
    for piece in pieces:
        runs = BranchedRuns(calibration.model, piece)
        for name, outputs in runs.changed(nears):
            diverged[name] += float(divergence(outputs, runs.reference)) / len(pieces)
            done += 1
            if progress is not None:
                progress(done // len(pieces), len(tried))

    def measured(layer: LayerScores) -> LayerScores:
        if layer.name not in tried:
            return _with_slope(layer, 0.0)
        return _with_slope(layer, max(diverged[layer.name], _LEAST_SLOPE) / tried[layer.name].relative_error ** 2)

    return scores.model_copy(update={"layers": tuple(map(measured, scores.layers))})


def with_sensitivity_of(scores: ModelScores, measured: ModelScores) -> ModelScores:
    """Price errors by slopes that were measured with scores of the same model for another target."""
    slopes = [
        max((c.predicted_loss / c.relative_error**2 for c in layer.candidates if c.relative_error > 0), default=0.0)
        for layer in measured.layers
    ]
    layers = [_with_slope(layer, slope) for layer, slope in zip(scores.layers, slopes, strict=True)]
    return scores.model_copy(update={"layers": tuple(layers)})


def _near_weight(model: nn.Module, name: str, tried: Candidate, moment: Tensor | None) -> Tensor:
    """Return a layer's weight with a candidate's structure, as it was scored: its slope is for the error found then."""
    assert tried.structure is not None
    layer = model.get_submodule(name)
    if moment is None:
        return approximate_weight(layer, tried.structure)
    return approximate_weight(layer, tried.structure, moment=moment, sweeps=sweeps_for_outputs(layer_weight(layer)))


def _even_batches(inputs: Inputs, at_once: int) -> list[Inputs]:
    """Divide inputs into batches of one size, as few as may run at once; up to one sample a batch is left out."""
    count = batch_size(inputs)
    number = -(-count // at_once)
    return list(batches(inputs, count // number))[:number]


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
