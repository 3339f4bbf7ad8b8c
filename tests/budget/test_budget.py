"""A budget is one table: what is added to it is planned, limited, judged and shown; what it lacks is refused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from sekron_edge.artifacts import Arena, Artifact
from sekron_edge.budget import (
    Budget,
    Evidence,
    Figures,
    Finding,
    LayerCost,
    Limit,
    Resource,
    register_resource,
    registered,
    resources,
    total,
)
from sekron_edge.bundle import (
    Delivery,
    Score,
    budget_rows,
    check_promises,
    delivery_evidence,
    shares,
)
from sekron_edge.cli._budget import with_limits
from sekron_edge.devices import device_limits, load_profile
from sekron_edge.errors import ConfigError, InfeasibleBudgetError
from sekron_edge.measurement import PairTimes
from sekron_edge.pipeline import load_config
from sekron_edge.planner import Plan, score, solve
from tests.cost_models import MacsAreTime
from tests.measurements import measured

# Everything that there is to say of a new resource, in one place.
TOY = Resource(
    name="operators",
    unit="",
    meaning="Operators that the model runs",
    predict=len,
    predicted="counted in the plan",
    device_fact="flash",
)
JOB = """
name = "job"
model = { factory = "net.py:make" }
data = { source = "digits" }
[budget]
"""


@pytest.fixture
def toy() -> Iterator[Resource]:
    with registered(TOY) as resource:
        yield resource


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 4)
    ).eval()


def planned(network: nn.Module, **limits: Any) -> Plan:
    scores = score(network, (torch.zeros(1, 3, 12, 12),), MacsAreTime())
    return scores.plan(Budget(**limits), profile="host", runtime="litert")


def delivery(*, arena: Arena | None = None, **known: Any) -> Delivery:
    artifact = Artifact(
        format="litert", precision="fp32", path=Path("model.tflite"), inputs=(), outputs=(), size_bytes=60,
        sha256="", versions={}, arena=arena,
    )  # fmt: skip
    return Delivery(artifact=artifact, dense_bytes=100, snippet="", **{"check": None, "measured": None, **known})


SCORE = Score(metric="accuracy", unit="%", dense=0.9, delivered=0.88, samples=10)


def evidence_of(plan: Plan, **known: Any) -> Evidence:
    return delivery_evidence(delivery(dense_measured=None, **known), plan, SCORE, device="some-board", measured_at=None)


def test_a_new_resource_is_planned(toy: Resource, network: nn.Module) -> None:
    free = planned(network, macs="0.2x")
    most = toy.amount(free.cost) - 1
    bounded = planned(network, macs="0.2x", operators=most)
    assert toy.amount(bounded.cost) == most
    assert bounded.cost.macs <= 0.2 * bounded.dense.macs
    assert list(bounded.limits) == ["macs", "operators"]
    assert bounded.solver.binding == ("macs", "operators")
    with pytest.raises(InfeasibleBudgetError, match=r"operators <= 1\b.*Raise .*operators"):
        planned(network, operators=1)


def test_a_new_resource_is_limited_by_a_fact_of_the_device(toy: Resource) -> None:
    board = load_profile("stm32h743")
    assert device_limits(board)["operators"] == device_limits(board)["artifact_bytes"]
    odd = Resource("odd", "", "", predict="macs", device_fact="weight")
    with registered(odd), pytest.raises(ConfigError, match="'weight', which no profile has"):
        device_limits(board)


def test_a_new_resource_is_judged_in_a_delivery_and_shown(toy: Resource, network: nn.Module) -> None:
    plan = planned(network, operators="1.2x")
    allowed = 1.2 * toy.amount(plan.dense)
    (result,) = check_promises(plan.budget, evidence_of(plan))
    assert (result.entry, result.how, result.kept) == ("operators", "counted in the plan", True)
    assert result.limit == pytest.approx(allowed)
    (missed,) = check_promises(Budget(operators=1), evidence_of(plan))
    assert not missed.kept
    assert f"operators <= {allowed:.6g}" in str(plan)
    manifest = SimpleNamespace(results=(result, missed))
    rows = budget_rows(manifest)  # type: ignore[arg-type]
    assert [row[0] for row in rows] == ["operators", "operators"]
    assert [row[-1] for row in rows] == ["kept", "missed"]


def test_a_new_resource_is_a_key_of_jobs_and_an_option_of_commands(toy: Resource, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(JOB + 'operators = "0.5x"')
    assert load_config(tmp_path / "job.toml").budget.limit("operators") == Limit(value=0.5, relative=True)
    given: dict[str, str] = {}
    app = typer.Typer()

    @app.command()
    @with_limits
    def plan(limits: dict[str, str], name: str = "") -> None:
        given.update(limits)

    assert TOY.meaning in " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "500"}).output.split())
    assert CliRunner().invoke(app, ["--operators", "12", "--macs", "0.5x", "--name", "a"]).exit_code == 0
    assert given == {"operators": "12", "macs": "0.5x"}


def test_a_resource_of_an_installed_package_is_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(
        "from sekron_edge.budget import Resource\n"
        "BAND = Resource('band', '', 'Values moved', predict='permuted_bytes')\n"
    )
    installed = tmp_path / "toy-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[sekron_edge.resources]\nband = toy:BAND\n")
    asked = "from sekron_edge.budget import Budget; print(Budget(band='0.5x').limit('band'))"
    done = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "0.5x\n"


def test_the_guide_lists_every_resource_as_the_table_has_it() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text()
    for resource in resources().values():
        plans = {"sum": "sum over the layers", "max": "largest of the layers"}[resource.adds_up]
        fact = f"`{resource.device_fact}`" if resource.device_fact else ""
        row = (f"`{resource.name}`", resource.unit, resource.meaning, plans if resource.is_planned else "", fact)
        assert f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") in guide, resource.name
        assert re.search(rf"^{resource.name} = ", guide, re.MULTILINE), resource.name


def test_a_figure_of_a_new_resource_is_in_files_only_where_it_is_used(toy: Resource, network: nn.Module) -> None:
    plan = planned(network, operators="1.2x")
    assert list(json.loads(plan.to_json())["budget"])[5:] == ["operators"]
    assert Plan.model_validate_json(plan.to_json()) == plan
    assert list(json.loads(plan.to_json())["dense"])[7:] == ["operators"]


def test_files_without_new_resources_are_as_ever(network: nn.Module) -> None:
    plan = json.loads(
        planned(network, peak_memory_bytes="1x", macs="0.5x", latency_ms="1x", accuracy_drop=0.1).to_json()
    )
    assert list(plan["budget"]) == ["latency_ms", "artifact_bytes", "peak_memory_bytes", "macs", "accuracy_drop"]
    assert (plan["budget"]["artifact_bytes"], plan["budget"]["accuracy_drop"]) == (None, 0.1)
    assert list(plan["limits"]) == ["latency_ms", "macs", "peak_memory_bytes"]
    figures = ["parameters", "macs", "artifact_bytes", "latency_ms", "peak_bytes", "activation_bytes", "permuted_bytes"]
    assert list(plan["dense"]) == figures


def test_a_budget_that_nobody_handles_is_refused(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'budget\.joules'.*latency_ms, artifact_bytes, peak_memory_bytes, macs"):
        Budget(joules=3)
    (tmp_path / "job.toml").write_text(JOB + "parametres = 3")
    with pytest.raises(ConfigError, match=r"job\.toml: unknown key 'budget\.parametres'; did you mean 'parameters'"):
        load_config(tmp_path / "job.toml")
    with registered(TOY):
        left = Budget(operators=3)
    with pytest.raises(ConfigError, match=r"budget\.operators"):
        Budget.model_validate(left.model_dump())
    with pytest.raises(ConfigError, match=r"budget\.operators"):
        left.limited()
    for unplanned in ("joules", "accuracy_drop"):
        with pytest.raises(ConfigError, match=unplanned):
            solve([], LayerCost(parameters=0, macs=0, artifact_bytes=0, latency_ms=0, peak_bytes=0), {unplanned: 1.0})


def test_scores_from_before_a_resource_was_registered_are_refused(network: nn.Module) -> None:
    scores = score(network, (torch.zeros(1, 3, 12, 12),), MacsAreTime())
    with registered(TOY), pytest.raises(ConfigError, match="'operators' was not counted"):
        scores.plan(Budget(operators=3), profile="host", runtime="litert")


def test_a_resource_says_how_it_is_found_and_has_a_name_of_its_own(toy: Resource) -> None:
    faulty: list[tuple[Callable[[], Resource], str]] = [
        (lambda: Resource("joules", "J", ""), "'joules' is never found"),
        (lambda: Resource("mega joules", "J", "", predict="macs"), "plain key"),
        (lambda: TOY, "'operators' exists"),
        (lambda: Resource("peak_bytes", "", "", predict=len), "'peak_bytes' exists"),
        (lambda: Resource("joules", "J", "", predict="heat"), "'heat', which no cost has"),
        (lambda: Resource("copy", "", "", predict=len), "'copy' exists"),
        (lambda: Resource("memory", "", "", predict="peak_bytes"), "by 'sum', and its figure 'peak_bytes' by 'max'"),
    ]
    for make, message in faulty:
        with pytest.raises(ConfigError, match=message):
            register_resource(make())
    assert "joules" not in resources()


def test_totals_are_sums_and_maxima_as_the_table_says() -> None:
    one = LayerCost(parameters=1, macs=2, artifact_bytes=3, latency_ms=4, peak_bytes=5)
    assert total([one, one]) == LayerCost(parameters=2, macs=4, artifact_bytes=6, latency_ms=8, peak_bytes=5)
    assert total([]) == LayerCost(parameters=0, macs=0, artifact_bytes=0, latency_ms=0, peak_bytes=0)
    widest = Resource("widest", "", "", predict=len, adds_up="max")
    with registered(widest):
        further = [one.model_copy(update={"widest": width}) for width in (3.0, 2.0)]
        assert total(further).amount("widest") == 3.0
    with pytest.raises(ConfigError, match="widest"):
        total(further)


def test_parameters_are_bounded_exactly_and_counted(network: nn.Module) -> None:
    plan = planned(network, parameters="0.5x")
    assert plan.cost.parameters <= plan.dense.parameters / 2
    assert plan.limits == {"parameters": plan.dense.parameters / 2}
    (result,) = check_promises(plan.budget, evidence_of(plan))
    assert (result.found, result.how, result.kept) == (plan.cost.parameters, "counted", True)


def cost(**figures: float) -> LayerCost:
    return LayerCost(**{"parameters": 0, "macs": 0, "artifact_bytes": 0, "latency_ms": 0, "peak_bytes": 0, **figures})


NPU = SimpleNamespace(accelerator="U55", clock_mhz=500.0, latency_ms=2.0, sram_bytes=40)
MEASURED = {"median_ms": 1.0, "process_bytes": 10}
PREDICTED = {"predicted": cost(latency_ms=3, peak_bytes=30)}


@pytest.mark.parametrize(
    ("known", "latency", "memory"),
    [
        pytest.param(
            {**MEASURED, "arena_bytes": 20, "compiled": NPU, **PREDICTED},
            (1.0, "measured on this machine, median"),
            (10, "measured on this machine, of the process"),
            id="measured",
        ),
        pytest.param(
            {"arena_bytes": 20, "compiled": NPU, **PREDICTED},
            (2.0, "estimated by the compiler for U55 at 500 MHz, not measured there"),
            (20, "arena, tested with tflm on this machine, 5% margin"),
            id="tested",
        ),
        pytest.param(
            {"compiled": NPU, **PREDICTED},
            (2.0, "estimated by the compiler for U55 at 500 MHz, not measured there"),
            (40, "SRAM, estimated by the compiler for U55; not measured"),
            id="compiled",
        ),
        pytest.param(
            PREDICTED,
            (3.0, "estimated for board, not measured there"),
            (30, "predicted: what activations take at most; not measured"),
            id="predicted",
        ),
    ],
)
def test_the_most_trusted_finding_counts(known: Any, latency: tuple[float, str], memory: tuple[float, str]) -> None:
    figures = Figures(100, **known)
    evidence = Evidence(
        figures, figures, device="board", place="this machine", tested_with="tflm on this machine, 5% margin",
        metric=Finding(0.875, 1.0, "held-out data"),
    )  # fmt: skip
    budget = Budget(latency_ms="2x", artifact_bytes=99, peak_memory_bytes="1x", accuracy_drop=0.125)
    results = check_promises(budget, evidence)
    assert [result.entry for result in results] == [
        "latency_ms",
        "artifact_bytes",
        "peak_memory_bytes",
        "accuracy_drop",
    ]
    assert [(result.found, result.how) for result in results] == [
        latency, (100, "size of the file"), memory, (0.125, "held-out data")
    ]  # fmt: skip
    assert [result.kept for result in results] == [True, False, True, True]


@pytest.mark.parametrize(("higher_is_better", "found", "kept"), [(True, -0.5, True), (False, 0.5, False)])
def test_what_is_lost_of_a_metric_goes_in_its_better_direction(
    higher_is_better: bool, found: float, kept: bool
) -> None:
    evidence = Evidence(
        Figures(1), Figures(1), metric=Finding(3.5, 3.0, "held-out data"), higher_is_better=higher_is_better
    )
    (result,) = check_promises(Budget(accuracy_drop=0.25), evidence)
    assert (result.found, result.kept) == (found, kept)


def test_shares_are_of_what_was_found_and_what_was_not_is_refused_at_the_end() -> None:
    evidence = Evidence(Figures(50), Figures(100))
    budget = Budget(latency_ms=1, artifact_bytes="0.8x", macs=3)
    assert shares(budget, evidence) == {"artifact_bytes": 50 / 80}
    with pytest.raises(ConfigError, match=r"latency_ms .* nothing was found of it"):
        check_promises(budget, evidence)


def test_a_latency_says_how_it_spread_over_processes(network: nn.Module) -> None:
    plan = planned(network, latency_ms="0.5x")
    pair = PairTimes(dense_ms=(4.0, 4.0, 4.0), artifact_ms=(1.2, 1.24, 1.16))
    before, after = (measured(median_ms) for median_ms in (4.0, 1.2))
    shown = delivery(dense_measured=before, measured=after, pair=pair)
    evidence = delivery_evidence(shown, plan, SCORE, device="host", measured_at="this machine")
    (result,) = check_promises(plan.budget, evidence)
    assert result.how == "measured on this machine, median: 0.300x, 0.290 to 0.310 in 3 processes"
    assert Delivery.model_validate(shown.model_dump(exclude={"pair"})).pair is None  # of an earlier release
