"""What could be had: plans from the dense model to the least of one entry, all from one scoring. No torch here."""

from __future__ import annotations

from typing import Literal

from sekron_edge.planner._plan import Budget, FrontierPoint
from sekron_edge.planner._scoring import ModelScores

BudgetedEntry = Literal["latency_ms", "artifact_bytes", "macs"]
# What sums may differ by, added up in another order.
_ROUNDING = 1e-6


def budgets_to_least(scores: ModelScores, entry: BudgetedEntry, points: int) -> list[Budget]:
    """Return budgets of one entry, in equal ratios from what the dense model takes to the least that can be had."""
    dense, least = float(getattr(scores.dense, entry)), scores.least(entry)
    limits = [dense * (least / dense) ** (index / max(1, points - 1)) * (1 + _ROUNDING) for index in range(points)]
    return [Budget.model_validate({entry: limit}) for limit in limits]


def frontier(scores: ModelScores, entry: BudgetedEntry = "latency_ms", points: int = 16) -> tuple[FrontierPoint, ...]:
    """Return the least predicted loss at each of such budgets; each point once."""
    plans = [scores.plan(budget, profile="", runtime="") for budget in budgets_to_least(scores, entry, points)]
    found = [FrontierPoint(cost=plan.cost, predicted_loss=plan.solver.objective) for plan in plans]
    return tuple(dict.fromkeys(found))
