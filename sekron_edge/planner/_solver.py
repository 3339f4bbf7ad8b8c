"""The exact choice: one candidate per layer, least predicted loss, under all budgets at once. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, milp

from sekron_edge.budget import LayerCost, Resource, planned_resource, planned_resources
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._plan import SolverResult
from sekron_edge.silence import silenced

_TOLERANCE = 1e-9
# A smaller gain than this is rounding.
_BETTER = 1e-6


def solve(
    layers: Sequence[LayerScores], rest: LayerCost, limits: Mapping[str, float]
) -> tuple[list[Candidate], SolverResult]:
    """Choose one candidate for each layer.

    Args:
        layers: With at least one candidate each.
        rest: The cost of everything that is not a choice.
        limits: Absolute limits, by the names of resources; absent means unlimited.

    Returns:
        The choice, layer by layer, and how it was proven.

    Raises:
        InfeasibleBudgetError: If no choice keeps all limits; names those that bind and the nearest point.
        ConfigError: If plans cannot be solved for one of the limits.
    """
    for entry in limits:
        planned_resource(entry)
    picked, status, bound = _best(layers, rest, limits)
    objective = sum(candidate.predicted_loss for candidate in picked)
    return picked, SolverResult(
        status=status, objective=objective, bound=bound, binding=_binding(layers, rest, limits, objective)
    )


def _best(
    layers: Sequence[LayerScores], rest: LayerCost, limits: Mapping[str, float]
) -> tuple[list[Candidate], Literal["optimal", "feasible"], float]:
    """Return the choice, whether it is proven to be the best, and the bound on its loss."""
    # A resource that adds up is bounded over all layers; a maximum bounds each candidate by itself.
    limited = [resource for resource in planned_resources() if resource.name in limits]
    bounded = [resource for resource in limited if resource.adds_up == "sum"]
    options = _within(layers, rest, [resource for resource in limited if resource.adds_up == "max"], limits)
    if not options:
        _require_rest(rest, bounded, limits)
        return [], "optimal", 0.0
    flat = [candidate for remaining in options for candidate in remaining]
    cost = np.array([[resource.amount(c.cost) for c in flat] for resource in bounded], dtype=float)
    cost = cost.reshape(len(bounded), len(flat))  # also where nothing is bounded
    room = np.array([limits[resource.name] - resource.amount(rest) for resource in bounded])
    loss = np.array([c.predicted_loss for c in flat])
    one_each = _one_each(options)
    # Scaled to about 1, so that HiGHS's absolute tolerances mean the same for milliseconds and for bytes.
    scale = np.maximum(np.abs(room), _TOLERANCE)
    constraints = [LinearConstraint(one_each, 1, 1)]
    if bounded:
        constraints.append(LinearConstraint(cost / scale[:, None], -np.inf, room / scale))
    spread = max(float(loss.max()), _TOLERANCE)
    solution = _solved(
        loss / spread,
        constraints=constraints,
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solution.x is None:
        raise _infeasible(cost, room, one_each, [resource.name for resource in bounded], limits)
    picked = [flat[index] for index in np.flatnonzero(solution.x > 0.5)]
    return picked, "optimal" if solution.status == 0 else "feasible", float(solution.mip_dual_bound) * spread


def _solved(objective: npt.NDArray[np.float64], **problem: Any) -> Any:
    """Run HiGHS silently: it sometimes prints a line for its developers to stdout (ERGO-Code/HiGHS#2783)."""
    with silenced():
        return milp(objective, **problem)


def _binding(
    layers: Sequence[LayerScores], rest: LayerCost, limits: Mapping[str, float], objective: float
) -> tuple[str, ...]:
    """Return the limits without which there would be a better choice; all, where each of them is enough."""
    least = sum(min(candidate.predicted_loss for candidate in layer.candidates) for layer in layers)
    better = objective - _BETTER * max(objective, _TOLERANCE)
    if least >= better:
        return ()
    if len(limits) == 1:
        return tuple(limits)
    without = {entry: {e: limit for e, limit in limits.items() if e != entry} for entry in limits}
    binding = [
        entry
        for entry, others in without.items()
        if sum(candidate.predicted_loss for candidate in _best(layers, rest, others)[0]) < better
    ]
    return tuple(binding or limits)


def _one_each(options: Sequence[Sequence[Candidate]]) -> npt.NDArray[np.float64]:
    rows = np.zeros((len(options), sum(map(len, options))))
    start = 0
    for row, remaining in enumerate(options):
        rows[row, start : start + len(remaining)] = 1
        start += len(remaining)
    return rows


def _within(
    layers: Sequence[LayerScores], rest: LayerCost, maxima: Sequence[Resource], limits: Mapping[str, float]
) -> list[list[Candidate]]:
    """Return the candidates of each layer that keep all limits on single candidates.

    Raises:
        InfeasibleBudgetError: If a layer has none, or the rest does not keep one of the limits.
    """
    for resource in maxima:
        _require_most(layers, rest, resource, limits[resource.name])
    options = [
        [c for c in layer.candidates if all(one.amount(c.cost) <= limits[one.name] for one in maxima)]
        for layer in layers
    ]
    for layer, remaining in zip(layers, options, strict=True):
        if not remaining:
            raise _no_candidate(layer, maxima, limits)
    return options


def _require_most(layers: Sequence[LayerScores], rest: LayerCost, resource: Resource, limit: float) -> None:
    """Refuse a limit of a maximum that no choice keeps; name the layer or operation that needs the most."""
    needs = {f"layer {layer.name!r}": min(resource.amount(c.cost) for c in layer.candidates) for layer in layers}
    needs["an operation between layers"] = resource.amount(rest)
    most = max(needs, key=lambda name: needs[name])
    if needs[most] > limit:
        name = resource.name
        shown = f"{limit:.0f}" if resource.whole else f"{limit:.6g}"
        raise InfeasibleBudgetError(
            f"{name} <= {shown} cannot be met: {most} needs at least {needs[most]}{resource.beside}. "
            f"Raise {name}, or choose a larger device.",
            binding=[name],
            nearest=[{name: needs[most]}],
        )


def _no_candidate(layer: LayerScores, maxima: Sequence[Resource], limits: Mapping[str, float]) -> InfeasibleBudgetError:
    """Return the error of a layer that keeps each of several maxima but not all at once, with its nearest candidate."""
    names = [resource.name for resource in maxima]
    points = [{resource.name: resource.amount(c.cost) for resource in maxima} for c in layer.candidates]
    nearest = min(points, key=lambda point: max(point[name] / limits[name] for name in names))
    return InfeasibleBudgetError(
        f"layer {layer.name!r} cannot keep {' and '.join(names)} at once; the nearest is {nearest}. Raise one of them.",
        binding=names,
        nearest=[nearest],
    )


def _require_rest(rest: LayerCost, bounded: Sequence[Resource], limits: Mapping[str, float]) -> None:
    nearest = {
        resource.name: float(resource.amount(rest))
        for resource in bounded
        if resource.amount(rest) > limits[resource.name]
    }
    if nearest:
        raise InfeasibleBudgetError(
            f"no layer can be compressed, and the model needs {nearest}", binding=list(nearest), nearest=[nearest]
        )


def _infeasible(
    cost: npt.NDArray[np.float64],
    room: npt.NDArray[np.float64],
    one_each: npt.NDArray[np.float64],
    bounded: Sequence[str],
    limits: Mapping[str, float],
) -> InfeasibleBudgetError:
    """Find the point whose largest overrun, relative to its limit, is the least."""
    limit = np.array([limits[entry] for entry in bounded])
    fixed = limit - room
    # Variables: the choices, then t; (cost + fixed) <= t * limit, minimise t.
    count = cost.shape[1]
    overrun = np.hstack([cost / limit[:, None], -np.ones((len(bounded), 1))])
    choose = np.hstack([one_each, np.zeros((len(one_each), 1))])
    solution = _solved(
        np.append(np.zeros(count), 1.0),
        constraints=[LinearConstraint(overrun, -np.inf, -fixed / limit), LinearConstraint(choose, 1, 1)],
        integrality=np.append(np.ones(count), 0),
        bounds=Bounds(0, np.append(np.ones(count), np.inf)),
    )
    reached = cost @ np.round(solution.x[:count]) + fixed
    nearest = {entry: float(value) for entry, value in zip(bounded, reached, strict=True)}
    binding = [e for e, value, most in zip(bounded, reached, limit, strict=True) if value > most]
    asked = ", ".join(f"{entry} <= {limits[entry]:.6g}" for entry in bounded)
    offered = ", ".join(f"{entry} = {value:.6g}" for entry, value in nearest.items())
    return InfeasibleBudgetError(
        f"no plan keeps {asked}; the nearest is {offered}. Raise {' and '.join(binding)}.",
        binding=binding,
        nearest=[nearest],
    )
