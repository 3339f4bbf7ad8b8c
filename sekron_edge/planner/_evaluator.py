"""Whole plans evaluated by their change of the model's output: errors of layers do not simply add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.nn import factors_of, replace_by_factors, replace_weights, supported_layers, weight_of_factors
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._exchange import Neighbours, near_only, neighbours, with_slopes_at
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._plan import Plan, Verdict
from sekron_edge.planner._rounding import Rounding, with_noise, without_families
from sekron_edge.pytrees import Inputs, Outputs, batch_size, batches, call, concatenated
from sekron_edge.structure import Structure
from sekron_edge.tensor import FactorizedTensor
from sekron_edge.threads import each_on_a_thread

# A round of exchanges, or of measuring the noise of layers, may take this part of a phase's time.
_ROUNDS_A_PHASE = 8
_ROUNDS = 3
# How often the loudest layers of a plan get other structures.
_QUIETER = 6
_QUARTER_DB = 6.0
# Of factors that are kept for the next plan.
_KEPT_BYTES = 1 << 30

_Key = tuple[str, Structure]


class PlanEvaluator:
    """Evaluates whole plans on calibration data as they would ship, before any fine-tuning.

    Args:
        calibration: Of the original model; factors are refined for it.
        divergence: ``(outputs, original outputs) -> scalar``, not negative.
        settle: Applied to a rewritten model before it is evaluated (batch-norm statistics computed again).
        evaluated_on: Inputs that divergences are measured on, if more than those of the calibration; in batches of the
            same size.
        compared: ``(outputs, others) -> (signal-to-noise ratio in dB, share of decisions that agree)``; the share is
            None where outputs decide nothing.
        rounding: Of the files that are delivered. None: plans are compared in floats.
    """

    def __init__(
        self,
        calibration: Calibration,
        *,
        divergence: Callable[[Outputs, Outputs], Tensor],
        settle: Callable[[nn.Module], nn.Module] = lambda model: model,
        evaluated_on: Inputs | None = None,
        compared: Callable[[Outputs, Outputs], tuple[float, float | None]] | None = None,
        rounding: Rounding | None = None,
    ) -> None:
        self._calibration = calibration
        self._divergence = divergence
        self._settle = settle
        self._compared = compared
        self._rounding = rounding
        self._layers, _ = supported_layers(calibration.model)
        self._evaluated_on = calibration.inputs if evaluated_on is None else evaluated_on
        self._reference = self._outputs(calibration.model)
        self._verdicts: dict[frozenset[_Key], Verdict] = {}
        self._factors: dict[_Key, list[FactorizedTensor]] = {}  # the last used ones at the end

    def verdict(self, plan: Plan) -> Verdict:
        """Return how far the decomposed model's outputs are from the original's, rounded if it ships rounded."""
        key = frozenset(plan.structures().items())
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(plan)
        return self._verdicts[key]

    def _judge(self, plan: Plan) -> Verdict:
        if self._rounding is None:
            # Dense weights that stand for the factors compute the same, and faster.
            near = {name: weight_of_factors(self._layers[name], own) for (name, _), own in self._near(plan).items()}
            outputs = self._outputs(self._settle(replace_weights(self._calibration.model, near)).eval())
            return self._verdict(outputs, None)
        small = self._decomposed(plan)
        return self._verdict(self._outputs(self._rounding.rounded(small)), self._outputs(small))

    def divergence(self, plan: Plan) -> float:
        """Return the divergence of the outputs from the original's (`verdict`)."""
        return self.verdict(plan).divergence

    def judged(self, plans: Sequence[Plan]) -> list[Plan]:
        """Return different plans, each with its verdict; plans of the same structures are one."""
        found: list[Plan] = []
        for plan in plans:
            if all(plan.structures() != other.structures() for other in found):
                verdict = self.verdict(plan)
                found.append(plan.model_copy(update={"divergence": verdict.divergence, "verdict": verdict}))
        return found

    def best(self, plans: Sequence[Plan]) -> Plan:
        """Return the plan that diverges least, with its verdict; the first one where several are equal.

        A plan whose file would be too noisy is taken only if all are.
        """
        return min(self.judged(plans), key=self._rank)

    def plan(self, scores: ModelScores, budget: Budget, *, profile: str, runtime: str, seed: int = 0) -> Plan:
        """Solve with all families of structures, and with each family only; return the best of these plans.

        In integers, a noisy plan is followed by others whose loudest layers have structures of other families.

        Raises:
            InfeasibleBudgetError: If no choice keeps the budget; carries the nearest point.
        """
        plans = [scores.plan(budget, profile=profile, runtime=runtime, seed=seed)]
        for family in sorted(scores.families):
            try:
                plans.append(scores.only([family]).plan(budget, profile=profile, runtime=runtime, seed=seed))
            except InfeasibleBudgetError:
                continue
        judged = self.judged(plans)
        if self._rounding is not None:
            judged += self._quieted(scores, min(judged, key=_divergence_of), self._rounding)
        return min(judged, key=self._rank)

    def exchanged(self, scores: ModelScores, plan: Plan) -> tuple[Plan, ModelScores]:
        """Return the plan, or one for the same budget that diverges less; and the losses that were measured around it.

        Args:
            scores: That the plan was made from.
            plan: With its verdict.
        """
        best = plan
        for _ in range(_ROUNDS):
            around = self._around(scores, best)
            # Slopes hold near the plan: where following them all the way leads to a worse one, a step may not.
            better = next(filter(None, (self._better(one, best) for one in (around, near_only(around, best)))), None)
            scores = around
            if better is None:
                break
            best = better
        return best, scores

    def _around(self, scores: ModelScores, plan: Plan) -> ModelScores:
        """Return scores with the losses that are measured around a plan."""
        near, pieces = self._affordable_steps(neighbours(scores, plan))
        if near:
            weights = self._weights_of(plan, near)
            scores = with_slopes_at(
                scores, plan, near, self._calibration,
                weight_of=weights.__getitem__, divergence=self._divergence, pieces=pieces,
            )  # fmt: skip
        return scores if self._rounding is None else with_noise(scores, plan, self._noise(plan, self._rounding))

    def _quieted(self, scores: ModelScores, plan: Plan, rounding: Rounding) -> list[Plan]:
        """Return plans that follow on a noisy one: its loudest layers get other families, until it is no longer noisy.

        Whatever rank a family has in a layer, its noise there is much the same.
        """
        found: list[Plan] = []
        for _ in range(_QUIETER):
            if not self._is_noisy(plan):
                break
            louder = scores
            scores = without_families(scores, plan, self._loudest(plan, rounding))
            if scores == louder:
                break  # what is loud is dense
            other = self._again(scores, plan)
            if other is None:
                break
            plan = other
            found.append(plan)
        return found

    def _loudest(self, plan: Plan, rounding: Rounding) -> list[str]:
        """Return the loudest of the layers that a plan changes, and all that make a quarter of the allowed noise."""
        small = self._decomposed(plan)
        rounded = rounding.rounded(small)
        inputs = self._calibration.affordable(_ROUNDS_A_PHASE * len(rounded.layers), self._evaluated_on)
        assert self._compared is not None
        alone = {}
        with torch.inference_mode():
            exact = call(small, inputs)
            for name in plan.structures():
                with rounded.only([name]):
                    alone[name] = self._compared(call(rounded, inputs), exact)[0]
        allowed = rounding.least_snr_db + _QUARTER_DB
        return [name for name, snr_db in alone.items() if snr_db <= max(allowed, min(alone.values()))]

    def _noise(self, plan: Plan, rounding: Rounding) -> dict[str, float]:
        """Return how much further the outputs are from the original's if one layer is rounded, by its name."""
        small = self._decomposed(plan)
        rounded = rounding.rounded(small)
        inputs = self._calibration.affordable(_ROUNDS_A_PHASE * len(rounded.layers), self._evaluated_on)
        with torch.inference_mode():
            original = call(self._calibration.model, inputs)
            exact = float(self._divergence(call(small, inputs), original))
            noise = {}
            for name in rounded.layers:
                with rounded.only([name]):
                    noise[name] = max(0.0, float(self._divergence(call(rounded, inputs), original)) - exact)
        return noise

    def _better(self, scores: ModelScores, plan: Plan) -> Plan | None:
        """Return the plan for the same budget with other losses, if it is better."""
        other = self._again(scores, plan)
        return other if other is not None and self._rank(other) < self._rank(plan) else None

    def _again(self, scores: ModelScores, plan: Plan) -> Plan | None:
        """Solve for a plan's budget with other losses or candidates; return the result, judged, if it is new."""
        try:
            # In numbers: shares are of the dense model, which may not be offered.
            limits = plan.budget.with_limits(plan.limits)
            other = scores.plan(limits, profile=plan.profile, runtime=plan.runtime, seed=plan.seed)
        except InfeasibleBudgetError:
            return None
        if other.structures() == plan.structures():
            return None
        return self.best([other.model_copy(update={"budget": plan.budget, "dense": plan.dense})])

    def _rank(self, plan: Plan) -> tuple[bool, float]:
        """Order judged plans: those whose files would be too noisy come last."""
        return self._is_noisy(plan), _divergence_of(plan)

    def _is_noisy(self, plan: Plan) -> bool:
        snr_db = None if plan.verdict is None else plan.verdict.snr_db
        return self._rounding is not None and snr_db is not None and snr_db < self._rounding.least_snr_db

    def _verdict(self, outputs: Outputs, exact: Outputs | None) -> Verdict:
        """Judge outputs; those in floats say how much of their error is rounding."""
        divergence = float(self._divergence(outputs, self._reference))
        if self._compared is None:
            return Verdict(divergence=divergence)
        _, agreement = self._compared(outputs, self._reference)
        snr_db = None if exact is None else self._compared(outputs, exact)[0]
        return Verdict(divergence=divergence, agreement=agreement, snr_db=snr_db)

    def _decomposed(self, plan: Plan) -> nn.Module:
        factors = {name: own for (name, _), own in self._near(plan).items()}
        return self._settle(replace_by_factors(self._calibration.model, factors)).eval()

    def _near(self, plan: Plan) -> dict[_Key, list[FactorizedTensor]]:
        """Return the factors of a plan's layers; plans for budgets side by side share most of theirs."""
        return self._factors_of(list(plan.structures().items()))

    def _factors_of(self, wanted: Sequence[_Key]) -> dict[_Key, list[FactorizedTensor]]:
        """Return factors; those that are known are not computed again."""
        moments = self._calibration.moments([name for name, _ in wanted])
        known = {key: self._factors.pop(key, None) for key in wanted}
        new = [key for key, factors in known.items() if factors is None]

        def computed(key: _Key) -> list[FactorizedTensor]:
            name, structure = key
            return factors_of(self._layers[name], structure, moment=moments.get(name))

        own = {key: factors for key, factors in known.items() if factors is not None}
        own |= dict(zip(new, each_on_a_thread(computed, new), strict=True))
        self._factors |= own
        while sum(map(_bytes, self._factors.values())) > _KEPT_BYTES:
            del self._factors[next(iter(self._factors))]
        return own

    def _affordable_steps(self, near: dict[str, Neighbours]) -> tuple[dict[str, Neighbours], list[Inputs]]:
        """Return as many layers as a round can move, with two runs of half the model each, and the inputs for it."""
        calibration = self._calibration
        few = calibration.affordable(_ROUNDS_A_PHASE * max(1, len(near)), self._evaluated_on)
        pieces = list(batches(few, min(batch_size(few), calibration.at_once)))
        even = [piece for piece in pieces if batch_size(piece) == batch_size(pieces[0])]
        most = int(calibration.passes_a_phase / _ROUNDS_A_PHASE / batch_size(few))
        return dict(islice(near.items(), max(1, most))), even

    def _weights_of(self, plan: Plan, near: dict[str, Neighbours]) -> dict[tuple[str, Structure | None], Tensor]:
        """Return weights of a plan's layers, and of their neighbours."""
        wanted: list[_Key] = list(plan.structures().items())
        weights: dict[tuple[str, Structure | None], Tensor] = {}
        for name, steps in near.items():
            weights[name, None] = self._layers[name].get_parameter("weight").detach()
            wanted += [(name, one.structure) for one in steps.beside if one.structure is not None]
        for (name, structure), factors in self._factors_of(list(dict.fromkeys(wanted))).items():
            weights[name, structure] = weight_of_factors(self._layers[name], factors)
        return weights

    def _outputs(self, model: nn.Module) -> Outputs:
        size = min(batch_size(self._calibration.inputs), self._calibration.at_once)
        with torch.inference_mode():
            return concatenated([call(model, batch) for batch in batches(self._evaluated_on, size)])


def _divergence_of(plan: Plan) -> float:
    assert plan.divergence is not None
    return plan.divergence


def _bytes(factors: Sequence[FactorizedTensor]) -> int:
    return sum(value.nbytes for group in factors for value in group.values)
