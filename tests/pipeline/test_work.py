"""An unfinished job goes on only as what it was, and is never thrown away unasked."""

from pathlib import Path

import pytest

from sekron_edge.budget import Budget, LayerCost
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import Plan, SolverResult

NOTHING = LayerCost(parameters=0, macs=0, artifact_bytes=0, latency_ms=0, peak_bytes=0)
PLAN = Plan(
    profile="host", runtime="litert", precision="fp32", budget=Budget(), limits={}, seed=0, layers=(), dense=NOTHING,
    cost=NOTHING, solver=SolverResult(status="optimal", objective=0, bound=0, binding=()), latency_source="",
    error_source="",
)  # fmt: skip


def test_a_plan_is_kept_and_found_again(tmp_path: Path) -> None:
    work = Work(tmp_path / "out", {"seed": "1"}, resume=False)
    assert work.plan() is None
    work.keep(PLAN)
    again = Work(tmp_path / "out", {"seed": "1"}, resume=True)
    assert again.plan() == PLAN
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_unfinished_work_is_neither_lost_nor_mixed_up(tmp_path: Path) -> None:
    Work(tmp_path / "out", {"seed": "1", "budget": "a"}, resume=False).keep(PLAN)
    with pytest.raises(ConfigError, match="--resume"):
        Work(tmp_path / "out", {"seed": "1", "budget": "a"}, resume=False)
    with pytest.raises(ConfigError, match="another budget, another seed"):
        Work(tmp_path / "out", {"seed": "2", "budget": "b"}, resume=True)
    assert Work(tmp_path / "out", {"seed": "1", "budget": "a"}, resume=True).plan() == PLAN


def test_work_without_a_plan_starts_anew(tmp_path: Path) -> None:
    work = Work(tmp_path / "out", {"seed": "1"}, resume=False)
    work.artifacts.mkdir()
    assert not Work(tmp_path / "out", {"seed": "2"}, resume=True).artifacts.exists()
