"""From scores to a plan that its exported artifact keeps: solve, export, measure, correct, solve again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sekron_edge.budget import LATENCY, Budget, Limit, find_resource, planned_resources
from sekron_edge.bundle import findings, shares
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.pipeline._context import PlanningContext
from sekron_edge.pipeline._corrections import Tried, corrected
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._trials import Trial
from sekron_edge.planner import ModelScores, Plan, budgets_to_least, frontier

_ROUNDS = 6
# A limit that was exceeded, and that no correction of the scores covers, is tightened by this much more.
_TO_SPARE = 0.95
# A plan this close to a limit leaves nothing to gain from another round; little is left after the first.
_CLOSE, _CLOSE_LATER = 0.93, 0.88
# Where the plan for the aim is known, others are looked for at these shares of it: nearer to the limit and a little
# beyond, as predictions may be wrong, once a plan keeps the budget; further from it as long as none does.
_NEARER = (1.03, 1.06, 1.1)
_FURTHER = (0.96, 0.92, 0.88)
# Sums may differ by this share when they are added up in another order.
_ROUNDING = 1e-6

# Budgets between one that breaks the model and the dense model are halved, in ratio, so often.
_HALVINGS = 4
# A plan that is predicted to miss a budget by less than this may keep it, and is tried.
_TRIED_BEYOND = 1.25


@dataclass(frozen=True)
class _Kept:
    """A plan whose artifact kept the budget, its scores, and whether it surely keeps it when measured again."""

    plan: Plan
    scores: ModelScores
    sure: bool

    def divergence(self) -> float:
        return _divergence(self.plan)


def plan_for(context: PlanningContext, *, work: Path, progress: Progress) -> Plan:
    """Solve, export, measure; correct the scores by all that was measured, and solve again.

    It ends with the first plan that surely keeps the budget and is close to its limit, or when no plan is left that
    may keep it and diverges less than the best one, or after six rounds. Of the plans that keep the budget the one with
    the least divergence is returned.

    Args:
        context: Of the job. The artifact must keep its budget and its device's limits; relative entries refer to the
            dense artifact.
        work: Folder for the artifacts of the rounds.
        progress: Receives the reports.

    Raises:
        InfeasibleBudgetError: If no plan keeps the budget, as predicted or, after some rounds, as measured.
    """
    budget = context.job.target.with_device_limits(context.job.budget)
    bench, anchored = context.anchored(work, progress)
    limits, aims = budget.with_limits(budget.planned(anchored.dense)), budget.with_headroom(anchored.dense)
    scores = anchored
    kept: list[_Kept] = []
    tried: list[Tried] = []
    for attempt in range(1, _ROUNDS + 1):
        try:
            with progress.busy("comparing plans on calibration data"):
                plan = _next(context, scores, aims, limits, tried, kept, progress)
        except InfeasibleBudgetError:
            if not tried:
                raise
            break
        if plan is None:
            break
        if not tried:
            with progress.busy("measuring losses around the plan"):
                plan, anchored = context.exchanged(anchored, plan)
            _say_quality(context, anchored, plan, progress)
        with progress.busy(f"exporting plan {attempt}"):
            trial = bench.trial(plan)
        tried.append(Tried(plan, trial))
        progress.say(f"plan {attempt}: {plan.cost.macs:,} MACs (dense {plan.dense.macs:,}){_predicted(plan)}, {trial}")
        used = shares(budget, trial.evidence)
        if all(share <= 1 for share in used.values()):
            latency = used.get(LATENCY.name, 1.0)  # neither measured nor budgeted: there is nothing to learn
            kept.append(_Kept(plan, scores, sure=trial.is_decided))
            close = _CLOSE if attempt == 1 else _CLOSE_LATER
            if kept[-1].sure and (LATENCY.name not in plan.solver.binding or latency >= close):
                break
        scores = corrected(anchored, tried)
        tighter = _tightened(aims, used)
        if tighter is not None:
            aims = limits = tighter
    if not kept:
        raise _missed([one.trial for one in tried], budget)
    best = min([one for one in kept if one.sure] or kept, key=_Kept.divergence)
    return best.plan.model_copy(update={"budget": budget, "frontier": frontier(best.scores)})


def _next(
    context: PlanningContext,
    scores: ModelScores,
    aims: Budget,
    limits: Budget,
    tried: Sequence[Tried],
    kept: Sequence[_Kept],
    progress: Progress,
) -> Plan | None:
    """Return the next plan that is worth a trial; None if there is none.

    Once a plan surely keeps the budget, only one that diverges less is worth it.

    Raises:
        InfeasibleBudgetError: If no plan is predicted to be near the limits.
    """
    known = [one.plan.structures() for one in tried]
    least = min((one.divergence() for one in kept if one.sure), default=None)

    def is_worth_it(plan: Plan) -> bool:
        return plan.structures() not in known and (least is None or _divergence(plan) < least)

    plan = _first_feasible(partial(context.plan, scores), aims, limits, progress)
    if is_worth_it(plan):
        return plan
    latency = aims.limit(LATENCY.name)
    if not isinstance(latency, Limit):
        return None
    for share in _FURTHER if least is None else _NEARER:
        with contextlib.suppress(InfeasibleBudgetError):
            plan = context.plan(scores, aims.with_limits({LATENCY.name: share * latency.value}))
            if is_worth_it(plan):
                return plan
    return None


def _predicted(plan: Plan) -> str:
    dense = plan.dense.latency_ms
    return f", predicted {plan.cost.latency_ms / dense:.3f}x" if dense else ""


def _say_quality(context: PlanningContext, scores: ModelScores, plan: Plan, progress: Progress) -> None:
    """Say how much of the model's answers a plan leaves before anyone trains; if little, which budget leaves more."""
    verdict = plan.verdict
    if verdict is None or verdict.agreement is None:
        return
    progress.say(f"before any training, {verdict.said}")
    if not verdict.is_broken:
        return
    with progress.busy("that breaks the model: looking for the nearest budget that does not"):
        nearest = _nearest_whole(context, scores, plan)
    progress.say(
        "that breaks the model, and training may not bring it back; "
        + (nearest or "no budget below the dense model's was found that does not")
    )


def _nearest_whole(context: PlanningContext, scores: ModelScores, plan: Plan) -> str | None:
    """Return in words the nearest budget whose plan does not break the model; None if none was found."""
    entry = next(iter(plan.solver.binding), None)
    if entry is None:
        return None
    resource = find_resource(entry)
    dense = float(resource.amount(scores.dense))
    broken, whole, found = plan.limits[entry], dense, None
    limits = plan.budget.with_limits(plan.limits)
    for _ in range(_HALVINGS):
        middle = (broken * whole) ** 0.5
        try:
            other = context.plan(scores, limits.with_limits({entry: middle}))
        except InfeasibleBudgetError:
            break
        if other.verdict is not None and other.verdict.is_broken:
            broken = middle
        else:
            whole, found = middle, other.verdict
    if found is None:
        return None
    return f"with {entry} = {whole:.6g} ({whole / dense:.2f}x of dense) {found.said}"


def _divergence(plan: Plan) -> float:
    assert plan.divergence is not None
    return plan.divergence


def frontier_for(context: PlanningContext, entry: str, points: int, *, work: Path, progress: Progress) -> list[Plan]:
    """Return plans from the dense model to the least possible amount of one entry, in equal ratios, as predicted.

    Each is the best of its budget, evaluated on calibration data before fine-tuning. Only the dense model is exported.

    Args:
        context: Of the job; its budget is ignored.
        entry: The resource that decreases from plan to plan.
        points: Number of budgets; a plan that two of them share is listed once.
        work: Folder for the dense artifact.
        progress: Receives the reports.
    """
    _, scores = context.anchored(work, progress)
    plans: list[Plan] = []
    for index, budget in enumerate(budgets_to_least(scores, entry, points)):
        progress.step("planning", index + 1, points)
        plan = context.plan(scores, budget)
        if not plans or plan.structures() != plans[-1].structures():
            plans.append(plan)
    return plans


def _first_feasible(chosen: Callable[[Budget], Plan], aims: Budget, limits: Budget, progress: Progress) -> Plan:
    """Plan for the aims, else for the limits themselves, else for the nearest point, if it is near.

    Raises:
        InfeasibleBudgetError: If even the nearest point is too far; the error is that of the limits.
    """
    with contextlib.suppress(InfeasibleBudgetError):
        return chosen(aims)
    try:
        return chosen(limits)
    except InfeasibleBudgetError as error:
        nearest = _nearest(error, limits)
        if nearest is None:
            raise
        progress.say(f"no plan is predicted to keep the budget, the nearest is tried: {error}")
        return chosen(nearest)


def _tightened(aims: Budget, used: Mapping[str, float]) -> Budget | None:
    """Tighten exceeded limits that no correction of the scores covers, by their overrun; None if there are none."""
    tighter = {}
    for resource in planned_resources():
        limit, share = aims.limit(resource.name), used.get(resource.name, 0.0)
        if share > 1 and not resource.corrected and isinstance(limit, Limit):
            tighter[resource.name] = limit.value * _TO_SPARE / share
    return aims.with_limits(tighter) if tighter else None


def _nearest(error: InfeasibleBudgetError, limits: Budget) -> Budget | None:
    """Return the limits, widened to the nearest point; None if that is too far for predictions to be the reason.

    A resource that trials do not correct cannot take less than predicted.
    """
    widened = {}
    for name, value in error.nearest[0].items():
        limit = limits.limit(name)
        if isinstance(limit, Limit) and value > limit.value:
            if not find_resource(name).corrected or value > _TRIED_BEYOND * limit.value:
                return None
            widened[name] = value * (1 + _ROUNDING)
    return limits.with_limits(widened)


def _missed(tried: list[Trial], budget: Budget) -> InfeasibleBudgetError:
    nearest = min(tried, key=lambda trial: max(shares(budget, trial.evidence).values()))
    used = shares(budget, nearest.evidence)
    known = findings(nearest.evidence)
    exceeded = [name for name, share in used.items() if share > 1]
    points = {name: float(known[name].found) for name in used}
    offered = ", ".join(f"{name} = {value:.6g}" for name, value in points.items())
    return InfeasibleBudgetError(
        f"of {len(tried)} plans that were exported, none kept {', '.join(exceeded)}; the nearest reached {offered} "
        f"({nearest}). Raise {' and '.join(exceeded)}.",
        binding=exceeded,
        nearest=[points],
    )
