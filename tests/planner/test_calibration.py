"""Moments are those of the layers that are asked for, bit by bit, and each is computed once."""

import pytest
import torch
from torch import Tensor, nn

from sekron_edge.nn import input_moments
from sekron_edge.planner import Calibration


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
