"""Whole plans evaluated by their change of the model's output: errors of layers do not simply add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.nn import approximate_weight, replace_weights, supported_layers
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._plan import Plan
from sekron_edge.pytrees import Inputs, Outputs, batch_size, batches, call, concatenated
from sekron_edge.structure import Structure
from sekron_edge.threads import each_on_a_thread

# Of approximate weights that are kept for the next plan.
_KEPT_BYTES = 1 << 30


class PlanEvaluator:
    """Evaluates whole plans on calibration data, before any fine-tuning.

    Args:
        calibration: Of the original model; factors are refined for it.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        settle: Applied to a rewritten model before it is evaluated (batch-norm statistics computed again).
        evaluated_on: Inputs that divergences are measured on, if more than those of the calibration; in batches of the
            same size.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        divergence: Callable[[Outputs, Outputs], Tensor],
        settle: Callable[[nn.Module], nn.Module] = lambda model: model,
        evaluated_on: Inputs | None = None,
    ) -> None:
        self._calibration = calibration
        self._divergence = divergence
        self._settle = settle
        self._layers, _ = supported_layers(calibration.model)
        self._evaluated_on = calibration.inputs if evaluated_on is None else evaluated_on
        self._reference = self._outputs(calibration.model)
        self._weights: dict[tuple[str, Structure], Tensor] = {}  # the last used one at the end

    def divergence(self, plan: Plan) -> float:
        """Return the divergence of the decomposed model's outputs from the original's."""
        near = self._settle(replace_weights(self._calibration.model, self._near_weights(plan))).eval()
        return float(self._divergence(self._outputs(near), self._reference))

    def _near_weights(self, plan: Plan) -> dict[str, Tensor]:
        """Return the approximate weights of a plan's layers; plans for budgets side by side share most of theirs."""
        structures = plan.structures()
        moments = self._calibration.moments(structures)
        known = {(name, one): self._weights.pop((name, one), None) for name, one in structures.items()}
        new = [key for key, weight in known.items() if weight is None]

        def approximated(key: tuple[str, Structure]) -> Tensor:
            name, structure = key
            return approximate_weight(self._layers[name], structure, moment=moments.get(name))

        own = {key: weight for key, weight in known.items() if weight is not None}
        own |= dict(zip(new, each_on_a_thread(approximated, new), strict=True))
        self._weights |= own
        while sum(weight.nbytes for weight in self._weights.values()) > _KEPT_BYTES:
            del self._weights[next(iter(self._weights))]
        return {name: weight for (name, _), weight in own.items()}

    def _outputs(self, model: nn.Module) -> Outputs:
        size = min(batch_size(self._calibration.inputs), self._calibration.at_once)
        with torch.inference_mode():
            return concatenated([call(model, batch) for batch in batches(self._evaluated_on, size)])

    def best(self, plans: Sequence[Plan]) -> Plan:
        """Return the plan that diverges least, with its divergence; the first one where several are equal."""
        divergences: list[float] = []
        for plan in plans:
            alike = (index for index in range(len(divergences)) if plans[index].structures() == plan.structures())
            first = next(alike, None)
            divergences.append(self.divergence(plan) if first is None else divergences[first])
        least = min(range(len(plans)), key=divergences.__getitem__)
        return plans[least].model_copy(update={"divergence": divergences[least]})

    def plan(self, scores: ModelScores, budget: Budget, *, profile: str, runtime: str, seed: int = 0) -> Plan:
        """Solve with all families of structures, and with each family only; return the best of these plans.

        Raises:
            InfeasibleBudgetError: If no choice keeps the budget; carries the nearest point.
        """
        plans = [scores.plan(budget, profile=profile, runtime=runtime, seed=seed)]
        for family in sorted(scores.families):
            try:
                plans.append(scores.only([family]).plan(budget, profile=profile, runtime=runtime, seed=seed))
            except InfeasibleBudgetError:
                continue
        return self.best(plans)
