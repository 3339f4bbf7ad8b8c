"""Rounding as a part of what a plan costs: the noise of a layer in integers is an error like any other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import nn

from sekron_edge.nn import FakeQuantized
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._plan import LayerChoice, Plan


@dataclass(frozen=True)
class Rounding:
    """How a model is rounded before it ships, and how much noise its file may have.

    Attributes:
        rounded: Returns a copy of a model that rounds as its file does.
        least_snr_db: The signal-to-noise ratio of outputs below which a file is refused.
    """

    rounded: Callable[[nn.Module], FakeQuantized]
    least_snr_db: float


def with_noise(scores: ModelScores, plan: Plan, noise: Mapping[str, float]) -> ModelScores:
    """Return scores in which the choices of a plan cost what their rounding was measured to cost, too.

    Other candidates keep their losses until they are chosen and measured themselves.

    Args:
        scores: That the plan was made from.
        plan: Its choices.
        noise: How much the model's outputs diverge because of one layer's rounding, by the layer's name.
    """

    def priced(layer: LayerScores, choice: LayerChoice) -> LayerScores:
        cost = noise.get(layer.name, 0.0)

        def with_own(candidate: Candidate) -> Candidate:
            if candidate.structure != choice.structure:
                return candidate
            return candidate.model_copy(update={"predicted_loss": candidate.predicted_loss + cost})

        return layer.model_copy(update={"candidates": tuple(map(with_own, layer.candidates))})

    layers = tuple(priced(layer, choice) for layer, choice in zip(scores.layers, plan.layers, strict=True))
    return scores.model_copy(update={"layers": layers})


def without_families(scores: ModelScores, plan: Plan, layers: Collection[str]) -> ModelScores:
    """Return scores that no longer offer some layers the family that a plan chose for them; dense stays."""

    def limited(layer: LayerScores, choice: LayerChoice) -> LayerScores:
        if layer.name not in layers or choice.structure is None:
            return layer
        others = tuple(one for one in layer.candidates if one.structure is None or one.family != choice.family)
        return layer.model_copy(update={"candidates": others})

    pairs = zip(scores.layers, plan.layers, strict=True)
    return scores.model_copy(update={"layers": tuple(limited(layer, choice) for layer, choice in pairs)})
