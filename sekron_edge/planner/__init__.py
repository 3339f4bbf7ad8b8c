"""Candidates, costs, errors and the exact choice among them.

Requirements kept here: no device and no runtime is known, a cost model is handed in; a plan never exceeds a
budget it was solved for; the same inputs and seed give the same plan; held-out data is never seen.
"""

from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._candidates import Candidate, LayerScores, enumerate_structures
from sekron_edge.planner._costs import CostModel, InFloat, Pricing
from sekron_edge.planner._errors import WeightErrors
from sekron_edge.planner._evaluator import PlanEvaluator
from sekron_edge.planner._families import (
    Family,
    added_families,
    kronecker_splits,
    ranks_up_to,
    register_family,
    structure_families,
)
from sekron_edge.planner._frontier import budgets_to_least, frontier
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._names import structure_name
from sekron_edge.planner._plan import (
    FrontierPoint,
    LayerChoice,
    Plan,
    SolverResult,
    Verdict,
)
from sekron_edge.planner._rounding import Rounding
from sekron_edge.planner._scoring import decompose, score, score_for_all
from sekron_edge.planner._selection import EVERY_LAYER, LayerSelection
from sekron_edge.planner._sensitivity import measure_sensitivity, with_sensitivity_of
from sekron_edge.planner._solver import solve

__all__ = [
    "EVERY_LAYER",
    "Calibration",
    "Candidate",
    "CostModel",
    "Family",
    "FrontierPoint",
    "InFloat",
    "LayerChoice",
    "LayerScores",
    "LayerSelection",
    "ModelScores",
    "Plan",
    "PlanEvaluator",
    "Pricing",
    "Rounding",
    "SolverResult",
    "Verdict",
    "WeightErrors",
    "added_families",
    "budgets_to_least",
    "decompose",
    "enumerate_structures",
    "frontier",
    "kronecker_splits",
    "measure_sensitivity",
    "ranks_up_to",
    "register_family",
    "score",
    "score_for_all",
    "solve",
    "structure_families",
    "structure_name",
    "with_sensitivity_of",
]
