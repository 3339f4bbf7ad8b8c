"""Networks that nobody trains on purpose, and that people have: dead layers, weights of any size, dull data.

Each is planned, judged and decomposed as any other; what comes out is finite, and as far from the model as was judged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.data import softened_divergence
from sekron_edge.planner import Calibration, PlanEvaluator, decompose, measure_sensitivity, score
from tests.cost_models import MacsAreTime

HALF = Budget(macs="0.5x")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def second(model: nn.Sequential) -> nn.Conv2d:
    layer = model[2]
    assert isinstance(layer, nn.Conv2d)
    return layer


def scaled(factor: float) -> Callable[[nn.Sequential], None]:
    def apply(model: nn.Sequential) -> None:
        with torch.no_grad():
            second(model).weight.mul_(factor)

    return apply


def dead_channels(model: nn.Sequential) -> None:
    with torch.no_grad():
        second(model).weight[::2] = 0.0


def equal_everywhere(model: nn.Sequential) -> None:
    with torch.no_grad():
        second(model).weight.fill_(0.01)


def silent(model: nn.Sequential) -> None:
    with torch.no_grad():
        for value in model[0].parameters():
            value.fill_(-1e4 if value.ndim == 1 else 0.0)  # nothing passes the ReLU behind it


MODELS = {
    "a layer of zeros": scaled(0.0),
    "half a layer of zeros": dead_channels,
    "one value everywhere": equal_everywhere,
    "activations of zeros": silent,
    "tiny weights": scaled(1e-20),
    "weights below what is normal": scaled(1e-38),
    "huge weights": scaled(1e8),
}
IMAGES: dict[str, Callable[[], Tensor]] = {
    "one image": lambda: torch.randn(1, 3, 8, 8),
    "one image again and again": lambda: torch.randn(1, 3, 8, 8).repeat(16, 1, 1, 1),
    "black": lambda: torch.zeros(16, 3, 8, 8),
    "one colour each": lambda: torch.randn(16, 3, 1, 1).expand(-1, -1, 8, 8).contiguous(),
    "glaring": lambda: 1e6 * torch.randn(16, 3, 8, 8),
}


def planned(model: nn.Module, x: Tensor) -> None:
    """Plan for half of all MACs, and require what any plan promises."""
    divergence = partial(softened_divergence, temperature=1.0)
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    calibration = Calibration(model, (x,))
    scores = measure_sensitivity(scores, calibration, divergence=divergence)
    chosen = PlanEvaluator(calibration, divergence=divergence).plan(scores, HALF, profile="test", runtime="test")
    assert chosen.divergence is not None
    assert -1e-6 < chosen.divergence < float("inf")  # of equal outputs it is rounding
    assert chosen.cost.macs <= 0.5 * chosen.dense.macs
    with torch.no_grad():
        small = decompose(model, chosen, calibration=(x,))(x)
        assert torch.isfinite(small).all()
        assert float(divergence(small, model(x))) == pytest.approx(chosen.divergence, rel=0.05, abs=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_any_finite_weights_are_planned(name: str) -> None:
    model = network().eval()
    MODELS[name](model)
    planned(model, torch.randn(16, 3, 8, 8))


@pytest.mark.parametrize("name", IMAGES)
def test_any_finite_inputs_are_planned_for(name: str) -> None:
    planned(network().eval(), IMAGES[name]())
