"""The choice keeps its budgets, and is the best that does."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekron_edge.budget import LayerCost
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.planner import Candidate, LayerScores, solve
from sekron_edge.planner._candidates import undominated

REST = LayerCost(parameters=5, macs=0, artifact_bytes=20, latency_ms=0.5, peak_bytes=0)


def candidate(loss: float, latency: float, size: int, macs: int) -> Candidate:
    cost = LayerCost(parameters=size, macs=macs, artifact_bytes=size, latency_ms=latency, peak_bytes=size)
    return Candidate(family="dense", structure=None, cost=cost, relative_error=loss, predicted_loss=loss)


candidates = st.builds(candidate, st.floats(0, 1), st.floats(0.01, 5), st.integers(1, 100), st.integers(1, 100))
problems = st.lists(st.lists(candidates, min_size=1, max_size=4), min_size=1, max_size=4).map(
    lambda lists: [
        LayerScores(name=f"l{i}", kind="Conv2d", weight_shape=(1,), considered=len(c), candidates=tuple(c))
        for i, c in enumerate(lists)
    ]
)


@given(problems, st.floats(0.1, 15), st.integers(20, 400), st.integers(1, 400), st.integers(1, 120))
@settings(deadline=None, max_examples=150)
def test_the_choice_equals_exhaustive_search(
    layers: list[LayerScores], latency: float, size: int, macs: int, peak: int
) -> None:
    limits = {"latency_ms": latency, "artifact_bytes": size, "macs": macs, "peak_memory_bytes": peak}

    def keeps(picks: tuple[Candidate, ...]) -> bool:
        return (
            REST.latency_ms + sum(p.cost.latency_ms for p in picks) <= latency
            and REST.artifact_bytes + sum(p.cost.artifact_bytes for p in picks) <= size
            and sum(p.cost.macs for p in picks) <= macs
            and all(p.cost.peak_bytes <= peak for p in picks)
        )

    feasible = [picks for picks in product(*(layer.candidates for layer in layers)) if keeps(picks)]
    if not feasible:
        with pytest.raises(InfeasibleBudgetError) as caught:
            solve(layers, REST, limits)
        assert caught.value.binding
        assert caught.value.nearest
        return
    best = min(sum(p.predicted_loss for p in picks) for picks in feasible)
    chosen, result = solve(layers, REST, limits)
    assert result.objective == pytest.approx(best, abs=1e-6)
    assert REST.latency_ms + sum(p.cost.latency_ms for p in chosen) <= latency * (1 + 1e-6)
    assert REST.artifact_bytes + sum(p.cost.artifact_bytes for p in chosen) <= size * (1 + 1e-6)
    assert sum(p.cost.macs for p in chosen) <= macs * (1 + 1e-6)


def test_the_nearest_point_of_an_infeasible_budget_can_be_met() -> None:
    layers = [
        LayerScores(
            name="l", kind="Linear", weight_shape=(1,), considered=2,
            candidates=(candidate(0, 4, 40, 4), candidate(1, 2, 80, 2)),
        )
    ]  # fmt: skip
    with pytest.raises(InfeasibleBudgetError, match=r"latency_ms = 2\.5") as caught:
        solve(layers, REST, {"latency_ms": 1.0})
    assert caught.value.nearest == ({"latency_ms": 2.5},)
    solve(layers, REST, dict(caught.value.nearest[0]))


def test_dominated_candidates_are_dropped() -> None:
    best, worse = candidate(0.1, 1, 10, 10), candidate(0.2, 1, 10, 10)
    assert undominated([worse, best]) == [best]


def test_candidates_that_save_next_to_nothing_are_dropped() -> None:
    better = candidate(0.1, 1, 100, 100)
    assert undominated([better, candidate(0.2, 0.97, 97, 97)]) == [better]
    for saves in (candidate(0.2, 0.94, 100, 100), candidate(0.2, 1, 94, 100), candidate(0.2, 1, 100, 94)):
        assert undominated([better, saves]) == [better, saves]
