"""Blocks of a decomposed network are brought nearer to the original's, without labels."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.nn import FactorizedConv, FactorizedLinear, RunnableGraph, blocks_of, replace_layers
from sekron_edge.pytrees import call, first
from sekron_edge.reconstruction import ReconstructionConfig, reconstruct
from sekron_edge.structure import Structure, weight_svd
from sekron_edge.training import reestimate_batch_norm

QUICK = ReconstructionConfig(samples=64, steps=20)


class Residual(nn.Module):
    """Two residual blocks, a depthwise layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.second(F.relu(self.first(x))))
        x = F.relu(x + self.depthwise(F.relu(self.wide(x))))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Twice(nn.Module):
    """A layer that runs twice, one that never does, and two branches that meet in a third."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.twice, self.joins = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(12, 3)
        self.unused = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        one = self.twice(self.enter(x).tanh()).relu()
        return {"logits": self.joins(torch.cat([one, self.twice(one)], 1)), "seen": one}


class UNet(nn.Module):
    """A long way around: an upsampled map meets an early one."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(6, 6, 2, stride=2), nn.Conv2d(12, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        early = self.down(x).relu()
        out: Tensor = self.out(torch.cat([early, self.up(self.deep(early).relu())], 1))
        return out


def halved(model: nn.Module, names: list[str]) -> dict[str, Structure]:
    structures = {}
    for name in names:
        shape = tuple(se.nn.layer_weight(model.get_submodule(name)).shape[1:])
        structures[name] = weight_svd(shape, max(1, min(shape[0], shape[1]) // 2))
    return structures


CASES: list[tuple[Callable[[], nn.Module], list[str], tuple[int, ...]]] = [
    (Residual, ["stem.0", "first", "second", "wide", "head"], (3, 8, 8)),
    (Twice, ["enter", "twice", "joins", "unused"], (6,)),
    (UNet, ["deep", "up"], (1, 8, 8)),
]


@pytest.fixture(params=CASES, ids=lambda case: case[0].__name__)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, dict[str, Structure], Tensor]:
    make, names, shape = request.param
    torch.manual_seed(0)
    model = make().eval()
    structures = halved(model, names)
    return model, replace_layers(model, structures), structures, torch.randn(64, *shape)


def test_blocks_are_the_whole_graph_and_end_where_little_is_alive() -> None:
    graph = RunnableGraph(Residual().eval(), torch.randn(2, 3, 8, 8))
    blocks = blocks_of(graph)
    assert [node for block in blocks for node in block.operators] == graph.operators[:-1]
    layers = [
        [graph.names[node].removesuffix(".weight") for node in block.held if graph.names[node].endswith("weight")]
        for block in blocks
    ]
    assert layers == [["stem.0", "stem.1"], ["first", "second"], ["wide", "depthwise"], ["head"]]
    assert all(len(block.alive) == 1 for block in blocks)


def test_no_block_gets_worse_on_inputs_that_nothing_was_fitted_to(
    case: tuple[nn.Module, nn.Module, dict[str, Structure], Tensor],
) -> None:
    model, small, structures, x = case
    before = deepcopy(small.state_dict())
    better, report = reconstruct(small, model, structures, x, config=QUICK)
    assert all(block.fitted <= block.solved <= block.decomposed for block in report.blocks)
    assert report.blocks[0].fitted < report.blocks[0].decomposed
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items()), "left as it was"
    again, same = reconstruct(small, model, structures, x, config=QUICK)
    assert same == report
    assert all(torch.equal(one, other) for one, other in zip(better.parameters(), again.parameters(), strict=True))


def test_outputs_come_nearer_and_layers_keep_their_structures() -> None:
    torch.manual_seed(1)
    x = torch.randn(256, 3, 8, 8)
    model = reestimate_batch_norm(Residual(), [x]).eval()
    structures = halved(model, ["first", "second", "wide"])
    small = replace_layers(model, structures)
    better, _ = reconstruct(small, model, structures, x, config=ReconstructionConfig(samples=256, steps=100))
    unseen = torch.randn(64, 3, 8, 8)

    def off(other: nn.Module) -> float:
        settled = reestimate_batch_norm(other, [x])
        with torch.no_grad():
            return float((settled.eval()(unseen) - model(unseen)).square().mean())

    assert off(better) < 0.7 * off(small)
    for name in structures:
        own, other = small.get_submodule(name), better.get_submodule(name)
        assert isinstance(own, FactorizedConv | FactorizedLinear)
        assert isinstance(other, FactorizedConv | FactorizedLinear)
        assert own.structure == other.structure


def test_what_cannot_be_corrected_keeps_its_factors_with_a_reason() -> None:
    torch.manual_seed(0)
    model = Twice().eval()
    structures = halved(model, ["enter", "twice", "unused"])
    small = replace_layers(model, structures)
    better, report = reconstruct(small, model, structures, torch.randn(64, 6), config=QUICK)
    assert report.left == {"twice": "it runs 2 times, on inputs of several kinds", "unused": "it does not run"}
    kept = [(small.get_submodule(name), better.get_submodule(name)) for name in ("twice", "unused")]
    pairs = [pair for own, other in kept for pair in zip(own.parameters(), other.parameters(), strict=True)]
    assert all(torch.equal(one, other) for one, other in pairs)
    _, nothing = reconstruct(small, model, structures, torch.randn(3, 6), config=QUICK)
    assert nothing.left["enter"] == "there are 3 inputs, and it takes 4"
    assert "3 inputs" in str(nothing)


@pytest.mark.parametrize("x", [torch.zeros(64, 3, 8, 8), torch.ones(64, 3, 8, 8)], ids=["zeros", "ones"])
def test_constant_inputs_change_nothing_for_the_worse(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Residual().eval()
    structures = halved(model, ["stem.0", "first", "wide"])
    small = replace_layers(model, structures)
    better, report = reconstruct(small, model, structures, x, config=QUICK)
    assert all(torch.isfinite(value).all() for value in better.state_dict().values())
    assert all(block.fitted <= block.decomposed for block in report.blocks)


class Decides(nn.Module):
    """Gives decisions only: nothing of the last layer is seen in floats."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).relu()).argmax(1)
        return out


def test_a_block_that_only_decides_keeps_its_factors() -> None:
    torch.manual_seed(0)
    model = Decides().eval()
    structures = halved(model, ["first", "last"])
    small = replace_layers(model, structures)
    better, report = reconstruct(small, model, structures, torch.randn(64, 6), config=QUICK)
    assert report.blocks[-1].fitted == report.blocks[-1].decomposed
    pairs = zip(small.get_submodule("last").parameters(), better.get_submodule("last").parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_dead_channels_are_no_obstacle() -> None:
    torch.manual_seed(0)
    model = Residual().eval()
    with torch.no_grad():
        model.first.weight[:4] = 0
        model.second.weight.zero_()
    structures = halved(model, ["first", "second", "wide"])
    better, _ = reconstruct(
        replace_layers(model, structures), model, structures, torch.randn(64, 3, 8, 8), config=QUICK
    )
    assert torch.isfinite(call(better.eval(), first(torch.randn(2, 3, 8, 8)))).all()
