"""Runs that begin at a changed layer give what whole runs give."""

from copy import deepcopy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.nn import BranchedRuns
from sekron_edge.pytrees import Inputs, Outputs, call, tensors


class Residual(nn.Module):
    """A shortcut, a layer that runs twice, operators in place, and an output of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.twice, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        stem = self.norm(self.stem(x))
        y = F.relu_(self.twice(stem))
        y = self.twice(y).add_(stem).mul_(scale)
        stem.relu_()
        return {"features": stem, "logits": self.head((y + stem).mean((2, 3)))}


class Tied(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.last = self.first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).tanh())
        return out


def as_it_trains(model: nn.Module) -> nn.Module:
    """Let batch norms use the batch's statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return model


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Residual, torch.randn(5, 3, 6, 6)),
        (Residual, {"x": torch.randn(5, 3, 6, 6), "scale": 0.5}),
        (Tied, torch.randn(4, 6)),
    ],
)
def test_a_branch_gives_what_a_whole_run_with_the_changed_weight_gives(make: type[nn.Module], inputs: Inputs) -> None:
    torch.manual_seed(0)
    model = make().eval()
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    changed = {name: torch.randn_like(layer.weight) for name, layer in layers.items()}

    def whole(name: str | None) -> Outputs:
        other = as_it_trains(deepcopy(model))
        if name is not None:
            other.get_submodule(name).get_parameter("weight").data = changed[name]
        with torch.no_grad():
            return call(other, inputs)

    before = deepcopy(model.state_dict())
    runs = BranchedRuns(model, inputs)
    found = dict(runs.changed({name: partial(changed.__getitem__, name) for name in changed}))
    assert found.keys() == layers.keys()
    for name, outputs in (*found.items(), (None, runs.reference)):
        for got, wanted in zip(tensors(outputs), tensors(whole(name)), strict=True):
            torch.testing.assert_close(got, wanted)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_a_batch_norm_of_few_values_keeps_its_own_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(BranchedRuns(model, x).reference, model(x))


def test_a_weight_of_other_strides_is_run() -> None:
    """A convolution's output has the strides of its weight, and what is behind was traced for those of the old one."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval(), torch.randn(2, 3, 6, 6)
    weight = torch.randn(4, 3, 3, 3)
    runs = BranchedRuns(model, x)
    ((_, plain),) = runs.changed({"0": lambda: weight})
    ((_, strided),) = runs.changed({"0": lambda: weight.to(memory_format=torch.channels_last)})
    torch.testing.assert_close(strided, plain)
    assert not torch.equal(plain, runs.reference)
