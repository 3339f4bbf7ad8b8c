"""Plans are measured until one surely keeps its budget; on a device whose times are scripted, as no real one's are."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import Budget
from sekron_edge.devices import load_profile
from sekron_edge.measurement import Conditions, Device, LocalDevice, Measurement, MeasurementRequest, Outcome
from sekron_edge.pipeline import Job, LogProgress
from sekron_edge.pipeline._context import PlanningContext
from sekron_edge.pipeline._place import Place
from sekron_edge.pipeline._planning import plan_for
from sekron_edge.pipeline._target import Target
from sekron_edge.pipeline._trials import Bench, _shortened
from sekron_edge.planner import Calibration, Plan, PlanEvaluator, score
from sekron_edge.task import Task
from tests.cost_models import MacsAreTime

pytestmark = pytest.mark.slow

ALLOWED = 0.6
DENSE_MS = 0.3  # a little less than `MacsAreTime` predicts


class ScriptedDevice(Device):
    """Takes always the same for the dense model; for each new artifact the share of it that the script says next."""

    name = "scripted"

    def __init__(self, real: Measurement, ratios: Sequence[float]) -> None:
        self._real = real.model_copy(update={"stable": True})
        self.ratios = list(ratios)
        self._of: dict[str, float] = {}

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        raise NotImplementedError

    def measure(self, artifact: Artifact, *args: Any, **options: Any) -> Measurement:
        return self._real.model_copy(update={"artifact_sha256": artifact.sha256, "median_ms": DENSE_MS})

    def measure_together(self, artifacts: Sequence[Artifact], *args: Any, **options: Any) -> list[Measurement]:
        dense, other = map(self.measure, artifacts)
        if other.artifact_sha256 not in self._of:
            self._of[other.artifact_sha256] = self.ratios.pop(0)
        return [dense, other.model_copy(update={"median_ms": DENSE_MS * self._of[other.artifact_sha256]})]


Made = tuple[PlanningContext, Bench, Measurement]
Scripted = tuple[PlanningContext, Bench, Callable[..., ScriptedDevice]]


def images_alone(x: Tensor) -> Task:
    """Return a task that is calibrated, and neither trained nor scored."""
    samples = TensorDataset(x, x)
    return Task(
        name="none", train=samples, calibration=samples, heldout=samples, loss=F.mse_loss, distillation=F.mse_loss,
        metric=MeanSquaredError, metric_name="error",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the planning context of a small model, its bench, and what its dense artifact takes here."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()  # fmt: skip
    x = torch.randn(16, 3, 12, 12)
    target = Target.choose(load_profile("host"), formats=["litert"])
    calibration = Calibration(model, (x,))
    evaluator = PlanEvaluator(calibration, divergence=lambda outputs, reference: (outputs - reference).square().mean())
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    job = Job(model, (x[:1],), images_alone(x), target, budget=Budget(latency_ms=f"{ALLOWED}x"))
    context = PlanningContext(job, calibration, scores, evaluator)
    bench = Bench(job, calibration, tmp_path_factory.mktemp("bench"))
    return context, bench, LocalDevice().measure(bench.dense, Conditions(runs=4, warmup=1))


@pytest.fixture
def scripted(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scripted:
    """Return context and bench, and a way to write the script of their device, which nothing is remembered of."""
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))
    context, bench, real = made

    def script(*ratios: float) -> ScriptedDevice:
        device = ScriptedDevice(real, ratios)
        monkeypatch.setattr(Place, "open", lambda place: device)
        return device

    return context, bench, script


class MoodyDevice(ScriptedDevice):
    """Is steady, or not, as its moods say."""

    def __init__(self, real: Measurement, moods: Sequence[bool]) -> None:
        super().__init__(real, ())
        self.moods = list(moods)

    def measure(self, artifact: Artifact, *args: Any, **options: Any) -> Measurement:
        found = super().measure(artifact)
        return found.model_copy(update={"stable": self.moods.pop(0), "median_ms": DENSE_MS + len(self.moods)})


def test_the_fastest_steady_process_counts_and_what_was_noisy_is_made_again(
    made: Made, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context, *_ = scripted

    def measured_with(*moods: bool) -> tuple[Measurement | None, int]:
        device = MoodyDevice(made[2], moods)
        monkeypatch.setattr(Place, "open", lambda place: device)
        return Bench(context.job, context.calibration, tmp_path).measured_dense(), len(device.moods)

    noisy, _ = measured_with(False, False, False)
    assert noisy is not None
    assert not noisy.stable
    assert measured_with(False, False, False) == (noisy, 0)
    steady, left = measured_with(True, True, False)
    assert steady is not None
    assert (steady.stable, steady.median_ms, left) == (True, DENSE_MS + 1, 0)
    assert measured_with(True) == (steady, 1)


def planned(context: PlanningContext, work: Path) -> Plan:
    return plan_for(context, work=work, progress=LogProgress())


@pytest.mark.parametrize(
    ("shares", "tried"),
    [
        pytest.param([0.95], 1, id="close to its budget, and surely within it"),
        pytest.param([0.995, 0.96], 2, id="what noise may lift over the budget is tried again"),
        pytest.param([1.2, 0.93], 2, id="what misses the budget corrects the scores"),
    ],
)
def test_a_plan_is_taken_that_surely_keeps_its_budget(
    scripted: Scripted, tmp_path: Path, shares: list[float], tried: int
) -> None:
    context, _, script = scripted
    device = script(*(ALLOWED * share for share in shares), *[2.0] * 6)
    plan = planned(context, tmp_path)
    assert 6 - len(device.ratios) + len(shares) == tried
    source = f"plan {tried - 1} measured at" if tried > 1 else "dense model measured at"
    assert source in plan.latency_source


def test_a_plan_that_only_just_keeps_its_budget_is_better_than_none(scripted: Scripted, tmp_path: Path) -> None:
    context, _, script = scripted
    script(ALLOWED * 0.995, *[2.0] * 6)
    assert "plan 1" not in planned(context, tmp_path).latency_source


def test_trials_of_slow_networks_take_fewer_runs_and_never_more_than_asked_for() -> None:
    asked = Conditions(runs=50, warmup=10)
    assert _shortened(asked, 20.0) == asked
    assert _shortened(asked, 250.0) == replace(asked, runs=20, warmup=4)
    assert _shortened(asked, 60_000.0) == replace(asked, runs=10, warmup=2)
    assert _shortened(replace(asked, runs=3, warmup=0), 60_000.0) == replace(asked, runs=3, warmup=0)
