"""The possible plans: from the dense model to the least of one entry, all from one scoring. No torch here."""

from __future__ import annotations

from sekron_edge.budget import LATENCY, Budget, planned_resource
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._plan import FrontierPoint

# Sums may differ by this share when they are added up in another order.
_ROUNDING = 1e-6


def budgets_to_least(scores: ModelScores, entry: str, points: int) -> list[Budget]:
    """Return budgets of one entry, in equal ratios from the dense model's figure to the least that is possible.

    Raises:
        ConfigError: If plans are not solved for it, or it does not add up over layers.
    """
    dense, least = float(planned_resource(entry).amount(scores.dense)), scores.least(entry)
    limits = [dense * (least / dense) ** (index / max(1, points - 1)) * (1 + _ROUNDING) for index in range(points)]
    return [Budget.model_validate({entry: limit}) for limit in limits]


def frontier(scores: ModelScores, entry: str = LATENCY.name, points: int = 16) -> tuple[FrontierPoint, ...]:
    """Return the least predicted loss at each of these budgets; each point once."""
    plans = [scores.plan(budget, profile="", runtime="") for budget in budgets_to_least(scores, entry, points)]
    least_losses = [FrontierPoint(cost=plan.cost, predicted_loss=plan.solver.objective) for plan in plans]
    return tuple(dict.fromkeys(least_losses))
