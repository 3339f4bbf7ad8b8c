"""An unfinished job goes on only as what it was, and is never thrown away unasked."""

from pathlib import Path

import pytest

from sekron_edge.budget import Budget, LayerCost
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import Plan, SolverResult

NOTHING = LayerCost(parameters=0, macs=0, artifact_bytes=0, latency_ms=0, peak_bytes=0)
PLAN = Plan(
    profile="host", runtime="litert", precision="fp32", budget=Budget(), limits={}, seed=0, layers=(), dense=NOTHING,
    cost=NOTHING, solver=SolverResult(status="optimal", objective=0, bound=0, binding=()), latency_source="",
    error_source="",
)  # fmt: skip


def test_a_plan_is_kept_and_found_again(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", resume=False) as output:
        work = Work(output, {"seed": "1"})
        assert work.plan() is None
        work.keep(PLAN)
    with claimed(tmp_path / "out", resume=True) as output:
        again = Work(output, {"seed": "1"})
        assert again.plan() == PLAN
        again.remove()
    assert list(tmp_path.iterdir()) == []


def test_unfinished_work_is_neither_lost_nor_mixed_up(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", resume=False) as output:
        Work(output, {"seed": "1", "budget": "a"}).keep(PLAN)
    with pytest.raises(ConfigError, match="--resume"), claimed(tmp_path / "out", resume=False):
        pass
    with claimed(tmp_path / "out", resume=True) as output:
        with pytest.raises(ConfigError, match="another budget, another seed"):
            Work(output, {"seed": "2", "budget": "b"})
        assert Work(output, {"seed": "1", "budget": "a"}).plan() == PLAN


def test_work_without_a_plan_starts_anew(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", resume=False) as output:
        Work(output, {"seed": "1"}).artifacts.mkdir()
    with claimed(tmp_path / "out", resume=True) as output:
        assert not Work(output, {"seed": "2"}).artifacts.exists()
