"""Inner channels are found through everything that leaves channels by themselves, and narrower layers compute alike."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import ConfigError
from sekron_edge.nn import InnerChannels, inner_channels, narrow, narrowed, removal_of

X = torch.randn(48, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Excited(nn.Module):
    """An inverted residual with squeeze and excite, as MobileNetV3 has."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, inner, 1, bias=False)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(inner), nn.BatchNorm2d(inner), nn.BatchNorm2d(width)])
        self.squeeze, self.excite = nn.Conv2d(inner, 4, 1), nn.Conv2d(4, inner, 1)
        self.project = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.norms[0](self.expand(x)))
        y = F.relu6(self.norms[1](self.depthwise(y)))
        y = y * F.hardsigmoid(self.excite(torch.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        summed: Tensor = x + self.norms[2](self.project(y))
        return summed


class Basic(nn.Module):
    """A basic residual block."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = x + self.second(torch.relu(self.norm(self.first(x))))
        return summed


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.conv(self.conv(x)))
        return found


class Softmaxed(nn.Module):
    """Channels that a softmax over them mixes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x).softmax(1))
        return found


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Excited(8, 24), Basic(8, 12), nn.Conv2d(8, 10, 3), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip
    for norm in [own for own in model.modules() if isinstance(own, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.running_mean = torch.randn(norm.num_features) / 4
    return model.eval()


def test_they_are_found_in_every_kind_of_block() -> None:
    found = inner_channels(network(), X[:1])
    assert found == {
        "1.expand": InnerChannels(
            24,
            ("1.expand", "1.excite"),
            ("1.norms.0", "1.depthwise", "1.norms.1"),
            {"1.squeeze": 1, "1.project": 1},
        ),
        "1.squeeze": InnerChannels(4, ("1.squeeze",), (), {"1.excite": 1}),
        "2.first": InnerChannels(12, ("2.first",), ("2.norm",), {"2.second": 1}),
        "3": InnerChannels(10, ("3",), (), {"7": 4}),
        "7": InnerChannels(16, ("7",), (), {"10": 1}),
    }


@pytest.mark.parametrize(
    "model",
    [
        Twice(),
        Softmaxed(),
        nn.Conv2d(3, 4, 1),
        nn.Sequential(nn.Flatten(), nn.Linear(300, 4)),
        # The channels of linear layers are the last axis: these mix them, or work on another axis.
        nn.Sequential(nn.Linear(10, 8), nn.MaxPool2d(2), nn.Linear(4, 4)),
        nn.Sequential(nn.Linear(10, 8), nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(10, 8), nn.BatchNorm2d(3), nn.Linear(8, 4)),
        nn.Sequential(nn.Linear(10, 8), nn.Flatten(), nn.Linear(240, 4)),
    ],
)
def test_channels_that_others_see_are_none(model: nn.Module) -> None:
    assert inner_channels(model.eval(), X[:1]) == {}


@pytest.mark.parametrize("name", ["1.expand", "1.squeeze", "2.first", "3", "7"])
def test_a_narrower_model_computes_what_zeros_would(name: str) -> None:
    model = network()
    channels = inner_channels(model, X[:1])[name]
    kept = [one for one in range(channels.channels) if one % 3]
    zeros = copy.deepcopy(model)
    for reader, places in channels.consumers.items():
        weight = zeros.get_submodule(reader).get_parameter("weight")
        for channel in range(0, channels.channels, 3):
            weight.data[:, channel * places : (channel + 1) * places] = 0
    small = narrowed(model, channels, kept)
    torch.testing.assert_close(small(X), zeros(X))
    assert sum(own.numel() for own in small.parameters()) < sum(own.numel() for own in model.parameters())
    assert torch.equal(network()(X), model(X))


@pytest.mark.parametrize("name", ["1.expand", "2.first", "3"])
def test_solving_again_brings_the_readers_nearer(name: str) -> None:
    model = network()
    channels = inner_channels(model, X[:1])[name]
    width = channels.channels * 2 // 3
    order, readers = removal_of(model, channels, X)
    small = narrow(model, {name: width}, calibration=X, example_inputs=X[:1])
    cut = narrowed(model, channels, order.kept(width))
    reader = [*readers][-1]

    def given(one: nn.Module) -> Tensor:
        seen: list[Tensor] = []
        hook = one.get_submodule(reader).register_forward_hook(lambda *found: seen.append(found[-1]))
        with torch.no_grad():
            one(X)
        hook.remove()
        return seen[0]

    wanted = given(model)
    assert (given(small) - wanted).square().sum() < (given(cut) - wanted).square().sum()


def test_narrow_models_are_ordinary_ones() -> None:
    model = network()
    small = narrow(model, {"1.expand": 16, "7": 8, "3": 10}, calibration=X, example_inputs=X[:1])
    assert inner_channels(small, X[:1])["1.expand"].channels == 16
    assert [small.get_submodule(name).get_parameter("weight").shape[0] for name in ("1.excite", "3", "7")] == [
        16,
        10,
        8,
    ]
    torch.export.export(small, (X[:1],))


def test_mistakes_are_named() -> None:
    model = network()
    for widths, said in (({"1.project": 4}, "1.squeeze"), ({"7": 0}, "1 to 16, got 0"), ({"7": 17}, "1 to 16, got 17")):
        with pytest.raises(ConfigError, match=said):
            narrow(model, widths, calibration=X, example_inputs=X[:1])
    for kept in ([], [1, 1], [16]):
        with pytest.raises(ConfigError, match="channels 0 to 15"):
            narrowed(model, inner_channels(model, X[:1])["7"], kept)
