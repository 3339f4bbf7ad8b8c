"""Plans bettered by exchanges, and judged as they ship."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.nn import FactorizedConv, FakeQuantized
from sekron_edge.planner import (
    Calibration,
    ModelScores,
    Plan,
    PlanEvaluator,
    Rounding,
    Verdict,
    measure_sensitivity,
    score,
)
from sekron_edge.quantization import simulated
from sekron_edge.verification import compare
from tests.cost_models import MacsAreTime


def softened(outputs: Tensor, reference: Tensor) -> Tensor:
    return F.kl_div(outputs.log_softmax(1), reference.log_softmax(1), log_target=True, reduction="batchmean")


def compared(outputs: Tensor, others: Tensor) -> tuple[float, float | None]:
    found = compare([others.numpy()], [outputs.numpy()])
    return found.snr_db, found.agreement


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)).eval()


def scored(model: nn.Module, x: Tensor) -> tuple[Calibration, ModelScores]:
    calibration = Calibration(model, (x,))
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,), precision="int8")
    return calibration, measure_sensitivity(scores, calibration, divergence=softened)


def planned(evaluator: PlanEvaluator, scores: ModelScores, share: float) -> Plan:
    return evaluator.plan(scores, Budget(macs=f"{share}x"), profile="test", runtime="test")


@given(seed=st.integers(0, 50), share=st.sampled_from([0.15, 0.3, 0.5]))
@settings(max_examples=3, deadline=None)
def test_exchanges_never_raise_the_judged_divergence(seed: int, share: float) -> None:
    model, x = network(seed), torch.randn(32, 3, 12, 12)
    calibration, scores = scored(model, x)
    evaluator = PlanEvaluator(calibration, divergence=softened)
    plan = planned(evaluator, scores, share)
    better, around = evaluator.exchanged(scores, plan)
    assert better.divergence is not None
    assert plan.divergence is not None
    assert better.divergence <= plan.divergence
    assert better.divergence == evaluator.divergence(better)
    assert better.cost.macs <= share * scores.dense.macs
    assert (better.budget, better.limits, better.dense) == (plan.budget, plan.limits, plan.dense)
    assert [layer.name for layer in around.layers] == [layer.name for layer in scores.layers]


def test_a_plan_for_integers_is_judged_in_integers() -> None:
    model, x = network(0), torch.randn(48, 3, 12, 12)
    calibration, scores = scored(model, x)
    rounding = Rounding(partial(simulated, calibration=(x,)), 16.0)
    evaluator = PlanEvaluator(calibration, divergence=softened, compared=compared, rounding=rounding)
    plan = planned(evaluator, scores, 0.4)
    assert plan.verdict is not None
    assert plan.verdict.snr_db is not None
    assert plan.verdict.snr_db < 60
    assert plan.verdict.agreement is not None
    in_floats = PlanEvaluator(calibration, divergence=softened, compared=compared).verdict(plan)
    assert in_floats.snr_db is None
    assert in_floats.divergence != plan.verdict.divergence
    better, _ = evaluator.exchanged(scores, plan)
    assert better.verdict is not None
    assert better.verdict.divergence <= plan.verdict.divergence


class Loud(nn.Module):
    """A simulation in which one layer, once it has factors, drowns the output in noise."""

    def __init__(self, rounded: FakeQuantized) -> None:
        super().__init__()
        self.rounded, self.layers = rounded, rounded.layers
        self.active = {"2"} if isinstance(rounded.model[2], FactorizedConv) else set()  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(10, generator=torch.Generator().manual_seed(0)) if "2" in self.active else torch.zeros(10)
        out: Tensor = self.rounded(x) + noise
        return out

    @contextmanager
    def only(self, layers: Iterable[str]) -> Iterator[None]:
        before, self.active = self.active, self.active & set(layers)
        with self.rounded.only(layers):
            yield
        self.active = before


def test_a_layer_that_cannot_be_rounded_gets_another_structure_or_stays() -> None:
    model, x = network(1), torch.randn(32, 3, 12, 12)
    calibration, scores = scored(model, x)

    def rounded(small: nn.Module) -> Any:
        return Loud(simulated(small, (x,)))

    loud = PlanEvaluator(calibration, divergence=softened, compared=compared, rounding=Rounding(rounded, 16.0))
    plan = planned(loud, scores, 0.6)
    assert plan.verdict is not None
    assert plan.verdict.snr_db is not None
    assert plan.verdict.snr_db >= 16.0
    assert "2" not in plan.structures()


@pytest.mark.parametrize(("agreement", "broken"), [(None, False), (0.9, False), (0.2, True)])
def test_a_plan_that_breaks_the_model_says_so(agreement: float | None, broken: bool) -> None:
    model, x = network(2), torch.randn(16, 3, 12, 12)
    calibration, scores = scored(model, x)
    plan = planned(PlanEvaluator(calibration, divergence=softened), scores, 0.5)
    verdict = Verdict(divergence=1.5, agreement=agreement)
    assert verdict.is_broken is broken
    said = str(plan.model_copy(update={"verdict": verdict}))
    assert ("breaks the model" in said) is broken
    assert ("decisions are the original's" in said) is (agreement is not None)
