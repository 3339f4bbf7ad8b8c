"""Candidates, costs, errors and the exact choice among them.

Requirements kept here: no device and no runtime is known, a cost model is handed in; a plan never exceeds a
budget it was solved for; the same inputs and seed give the same plan; held-out data is never seen.
"""

from sekron_edge.planner._candidates import Candidate, LayerScores, enumerate_structures, kronecker_splits, ranks_up_to
from sekron_edge.planner._costs import CostModel
from sekron_edge.planner._errors import WeightErrors
from sekron_edge.planner._joint import Judge
from sekron_edge.planner._plan import HALF_THE_TIME, Budget, LayerChoice, LayerCost, Limit, Plan, SolverResult
from sekron_edge.planner._scoring import ModelScores, decompose, score
from sekron_edge.planner._sensitivity import measure_sensitivity
from sekron_edge.planner._solver import solve

__all__ = [
    "HALF_THE_TIME",
    "Budget",
    "Candidate",
    "CostModel",
    "Judge",
    "LayerChoice",
    "LayerCost",
    "LayerScores",
    "Limit",
    "ModelScores",
    "Plan",
    "SolverResult",
    "WeightErrors",
    "decompose",
    "enumerate_structures",
    "kronecker_splits",
    "measure_sensitivity",
    "ranks_up_to",
    "score",
    "solve",
]
