"""Moments are those of the layers that are asked for, bit by bit; for the same layers they are computed once."""

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


def moments_alone(calibration: Calibration, names: list[str]) -> dict[str, Tensor]:
    return input_moments(calibration.model, calibration.inputs, {n: calibration.model.get_submodule(n) for n in names})


def test_who_asks_for_the_same_layers_shares_their_moments(calibration: Calibration) -> None:
    moments = calibration.moments(["first", "second", "idle"])
    assert moments.keys() == {"first", "second"}
    assert calibration.moments(["second", "idle", "first"]) is moments
    assert calibration.moments(["first", "second"]) is moments
    assert calibration.model.runs == 1


def test_the_moments_of_other_layers_are_their_own(calibration: Calibration) -> None:
    everything = calibration.moments(["first", "second"])
    alone = calibration.moments(["second", "no such layer"])
    for moments, names in ((everything, ["first", "second"]), (alone, ["second"])):
        expected = moments_alone(calibration, names)
        assert moments.keys() == expected.keys()
        assert all(torch.equal(moments[name], expected[name]) for name in names)
    # The places at which a layer is looked at depend on the layers before it: sharing these would change plans.
    assert not torch.equal(everything["second"], alone["second"])
    assert calibration.moments(["first", "second"]) is everything
