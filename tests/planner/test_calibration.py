"""Moments are those of the layers that are asked for, bit by bit, and each is computed once."""

import pytest
import torch
from torch import Tensor, nn

from sekron_edge.nn import input_moments
from sekron_edge.planner import Calibration, _calibration
from sekron_edge.pytrees import batch_size


class Counted(nn.Module):
    """Counts how often it runs; one of its layers never does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 2, 3), nn.Linear(2, 2)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        features: Tensor = self.second(self.first(x).relu())
        return features


@pytest.fixture
def calibration() -> Calibration:
    """Images so many and so large that moments are taken at random places of them."""
    torch.manual_seed(0)
    return Calibration(Counted().eval(), (torch.randn(256, 2, 16, 16),))


def test_each_layers_moments_are_computed_once_whoever_asks(calibration: Calibration) -> None:
    second = calibration.moments(["second", "no such layer"])
    assert calibration.model.runs == 1
    both = calibration.moments(["first", "second", "idle"])
    assert both.keys() == {"first", "second"}
    assert both["second"] is second["second"]
    assert calibration.moments(["idle", "first"]).keys() == {"first"}
    assert calibration.model.runs == 2


def test_moments_do_not_depend_on_the_other_layers_that_are_asked_for(calibration: Calibration) -> None:
    layers = {name: calibration.model.get_submodule(name) for name in ("first", "second")}
    expected = input_moments(calibration.model, calibration.inputs, layers)
    alone = calibration.moments(["second"])["second"]
    assert torch.equal(alone, expected["second"])


@pytest.mark.parametrize(("seconds", "expected"), [(1e9, 256), (1e-9, 24)])
def test_a_phase_takes_as_many_samples_as_it_can_afford(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    monkeypatch.setattr(_calibration, "_SECONDS_A_PHASE", seconds)
    few = calibration.affordable(1)
    assert batch_size(few) == expected
    layers = {"first": calibration.model.get_submodule("first")}
    found = calibration.moments(layers)["first"]
    assert torch.equal(found, input_moments(calibration.model, few, layers)["first"])


def test_twice_the_passes_take_half_the_samples(calibration: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 1.0
    monkeypatch.setattr(_calibration, "_SECONDS_A_VALUE", seconds / (4 * 14**2 + 2 * 12**2))  # the convolutions'
    monkeypatch.setattr(_calibration, "_SECONDS_A_MAC", 0.0)
    monkeypatch.setattr(_calibration, "_SECONDS_A_PHASE", 200 * seconds)
    assert [batch_size(calibration.affordable(passes)) for passes in (1, 2, 4)] == [200, 100, 50]
