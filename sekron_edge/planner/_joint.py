"""Whole plans judged by what they change of the model's own output: errors of layers do not simply add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.nn import approximate_layers, input_moments, supported_layers
from sekron_edge.planner._plan import Budget, Plan
from sekron_edge.planner._scoring import ModelScores

# Of what is judged: the divergence of each tells how sure a difference is.
_PARTS = 16
_SURE = 2.0


class Judge:
    """Measures plans on calibration data, before any fine-tuning.

    Args:
        model: The original; left as it was.
        inputs: Calibration data, one tensor ``(batch, ...)`` an input of the model; never held-out data.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        settle: Applied to a rewritten model before it is judged (batch-norm statistics computed anew).
        judged: What divergences are measured on, if more than the inputs that factors are refined for; as many at a
            time as there are of those.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Tensor],
        *,
        divergence: Callable[[Tensor, Tensor], Tensor],
        settle: Callable[[nn.Module], nn.Module] = lambda model: model,
        judged: Sequence[Tensor] | None = None,
    ) -> None:
        self._model = model
        self._batch = len(inputs[0])
        self._divergence = divergence
        self._settle = settle
        layers, _ = supported_layers(model)
        self._moments = input_moments(model, inputs, layers)
        self._judged = inputs if judged is None else judged
        self._reference = self._outputs(model)

    def divergence(self, plan: Plan) -> float:
        """Return the divergence of the decomposed model's outputs from the original's."""
        return float(self._divergences(plan).mean())

    def best(self, mixed: Plan, alone: Sequence[Plan]) -> Plan:
        """Return the plan of one family that diverges least, or the one of all families where that is better for sure.

        What is chosen from more has the more errors that look smaller than they are: the mixed plan has to diverge less
        by two standard errors of the difference.

        Args:
            mixed: Solved with all families.
            alone: Solved with one family each.

        Returns:
            The plan, with its divergence.
        """
        found = [self._divergences(mixed)]
        for plan in alone:
            same = plan.structures() == mixed.structures()
            found.append(found[0] if same else self._divergences(plan))
        plans, means = [mixed, *alone], [float(each.mean()) for each in found]
        least = min(range(1, len(plans)), key=lambda index: means[index], default=0)
        gained = found[least] - found[0]
        if float(gained.mean()) > _SURE * float(gained.std()) / len(gained) ** 0.5:
            least = 0
        return plans[least].model_copy(update={"divergence": means[least]})

    def _divergences(self, plan: Plan) -> Tensor:
        """Return the divergence on each of so many equal parts of what is judged."""
        near = self._settle(approximate_layers(self._model, plan.structures(), moments=self._moments)).eval()
        pairs = zip(self._outputs(near).chunk(_PARTS), self._reference.chunk(_PARTS), strict=True)
        return torch.stack([self._divergence(*pair).detach().double() for pair in pairs])

    def _outputs(self, model: nn.Module) -> Tensor:
        batches = zip(*(torch.split(values, self._batch) for values in self._judged), strict=True)
        with torch.inference_mode():
            return torch.cat([model(*batch) for batch in batches])

    def plan(self, scores: ModelScores, budget: Budget, *, profile: str, runtime: str, seed: int = 0) -> Plan:
        """Solve with all families of structures, and with each alone; return the best of these plans (`best`).

        Raises:
            InfeasibleBudgetError: If no choice keeps the budget; carries the nearest point.
        """
        mixed = scores.plan(budget, profile=profile, runtime=runtime, seed=seed)
        alone = []
        for family in sorted(scores.families):
            try:
                alone.append(scores.only([family]).plan(budget, profile=profile, runtime=runtime, seed=seed))
            except InfeasibleBudgetError:
                continue
        return self.best(mixed, alone)
