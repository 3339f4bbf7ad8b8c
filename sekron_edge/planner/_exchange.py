"""Losses measured again around a plan: those of layers add up near the original only.

Each layer of the plan moves one step cheaper and one step dearer by itself; the divergences that are measured then give
the slopes of its loss there. Solved with these, a plan exchanges what hurts more than it saves for what hurts less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from sekron_edge.budget import planned_resource
from sekron_edge.nn import BranchedRuns, replace_weights
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._plan import LayerChoice, Plan
from sekron_edge.pytrees import Inputs, Outputs
from sekron_edge.structure import Structure

# A step changes a layer's cost by at least this factor: a smaller one would be lost in the noise of few samples.
_STEP = 1.3
# Slopes around a plan hold for errors of layers up to this much larger or smaller.
_NEAR = 1.5


@dataclass(frozen=True)
class Neighbours:
    """A layer's present candidate, the best that is a step cheaper, and the next dearer with less error, if any."""

    own: Candidate
    cheaper: Candidate | None
    dearer: Candidate | None

    @property
    def beside(self) -> list[Candidate]:
        """Those that there are."""
        return [one for one in (self.cheaper, self.dearer) if one is not None]


def neighbours(scores: ModelScores, plan: Plan) -> dict[str, Neighbours]:
    """Return the neighbours of each layer's choice that a plan could exchange, those of most predicted loss first.

    Args:
        scores: That the plan was made from.
        plan: Steps are in the first of the resources that bind it, or that limit it.
    """
    entry = next(iter([*plan.solver.binding, *plan.limits]), None)
    if entry is None:
        return {}
    amount = planned_resource(entry).amount
    found = {}
    for layer, choice in zip(scores.layers, plan.layers, strict=True):
        own = _chosen(layer, choice)
        spent = float(amount(own.cost))
        cheaper = [one for one in layer.candidates if float(amount(one.cost)) * _STEP <= spent]
        dearer = [one for one in layer.candidates if float(amount(one.cost)) >= spent * _STEP]
        down = max(cheaper, key=lambda one: (-one.relative_error, float(amount(one.cost))), default=None)
        up = min(
            (one for one in dearer if one.relative_error < own.relative_error),
            key=lambda one: float(amount(one.cost)),
            default=None,
        )
        if down is not None or up is not None:
            found[layer.name] = Neighbours(own, down, up)
    losses = {choice.name: choice.predicted_loss for choice in plan.layers}
    return dict(sorted(found.items(), key=lambda item: -losses[item[0]]))


def with_slopes_at(
    scores: ModelScores,
    plan: Plan,
    tried: Mapping[str, Neighbours],
    calibration: Calibration,
    *,
    weight_of: Callable[[tuple[str, Structure | None]], Tensor],
    divergence: Callable[[Outputs, Outputs], Tensor],
    pieces: Sequence[Inputs],
) -> ModelScores:
    """Return scores whose losses have the slopes that are measured around a plan; those of other layers stay.

    Args:
        scores: That the plan was made from.
        plan: Of the calibration's model.
        tried: The layers to move, of `neighbours`.
        calibration: Of the original model.
        weight_of: Returns the weight of a layer with a structure; its own for None.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        pieces: Batches of one size that divergences are measured on; their mean counts.
    """
    moved = replace_weights(
        calibration.model, {name: weight_of((name, structure)) for name, structure in plan.structures().items()}
    )
    steps = {
        side: {name: candidate for name, near in tried.items() if (candidate := getattr(near, side)) is not None}
        for side in ("cheaper", "dearer")
    }
    base = 0.0
    found: dict[str, dict[str, float]] = {side: dict.fromkeys(steps[side], 0.0) for side in steps}
    for piece in pieces:
        original = BranchedRuns(calibration.model, piece).reference
        runs = BranchedRuns(moved, piece)
        base += float(divergence(runs.reference, original)) / len(pieces)
        for side, candidates in steps.items():
            weights = {name: partial(weight_of, (name, one.structure)) for name, one in candidates.items()}
            for name, outputs in runs.changed(weights):
                found[side][name] += float(divergence(outputs, original)) / len(pieces)

    def refitted(layer: LayerScores) -> LayerScores:
        if layer.name not in tried:
            return layer
        near = tried[layer.name]
        rises = [
            (one.relative_error**2 - near.own.relative_error**2, found[side][layer.name] - base)
            for side, one in (("cheaper", near.cheaper), ("dearer", near.dearer))
            if one is not None
        ]
        return _with_slope(layer, _slope_through(rises, _slope_of(layer)))

    return scores.model_copy(update={"layers": tuple(map(refitted, scores.layers))})


def near_only(scores: ModelScores, plan: Plan) -> ModelScores:
    """Return scores that offer a plan's own choices, and those with errors so near that slopes around it hold."""

    def limited(layer: LayerScores, choice: LayerChoice) -> LayerScores:
        own = choice.relative_error
        near = tuple(
            one
            for one in layer.candidates
            if one.structure == choice.structure or own / _NEAR <= one.relative_error <= own * _NEAR
        )
        return layer.model_copy(update={"candidates": near})

    layers = tuple(limited(layer, choice) for layer, choice in zip(scores.layers, plan.layers, strict=True))
    return scores.model_copy(update={"layers": layers})


def _chosen(layer: LayerScores, choice: LayerChoice) -> Candidate:
    return next(one for one in layer.candidates if one.structure == choice.structure)


def _slope_of(layer: LayerScores) -> float:
    """Return the loss for each unit of squared error that a layer's candidates are priced by."""
    return max((c.predicted_loss / c.relative_error**2 for c in layer.candidates if c.relative_error > 0), default=0.0)


def _slope_through(rises: Sequence[tuple[float, float]], known: float) -> float:
    """Return the slope through rises of the loss by least squares, drawn to the known one.

    Args:
        rises: Changes of the squared error, and of the divergence.
        known: Counts as much as the steps that were taken.
    """
    width = sum(squared**2 for squared, _ in rises)
    if width == 0:
        return known
    measured = sum(squared * rise for squared, rise in rises) / width
    return (max(measured, 0.0) + known) / 2


def _with_slope(layer: LayerScores, slope: float) -> LayerScores:
    def priced(candidate: Candidate) -> Candidate:
        return candidate.model_copy(update={"predicted_loss": slope * candidate.relative_error**2})

    return layer.model_copy(update={"candidates": tuple(map(priced, layer.candidates))})
