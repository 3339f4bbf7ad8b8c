"""Batch norms fold into factors where all outputs are in one of them, and nowhere else."""

import copy

import pytest
import torch
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.nn import fold_batch_norms_, separate_batch_norms_
from sekron_edge.structure import Structure, full, tucker2, weight_svd


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Give batch norms statistics of their own, and scales that are not 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    model.train()(x)
    return model.eval()


@pytest.mark.parametrize(
    ("layer", "structure"),
    [
        (nn.Conv2d(8, 12, 3, padding=1, bias=False), tucker2((12, 8, 3, 3), 5, 4)),
        (nn.Conv2d(8, 12, 3, padding=1), full([(12, 2, 1, 1), (1, 4, 3, 3)], [3])),
        (nn.Conv2d(16, 24, 3, groups=2), full([(1, 8, 3, 1), (12, 1, 1, 3)], [4])),
        (nn.ConvTranspose2d(8, 12, 3, stride=2), weight_svd((12, 8, 3, 3), 4)),
        (nn.ConvTranspose2d(8, 12, 3, bias=False), weight_svd((12, 8, 3, 3), 4)),
    ],
    ids=str,
)
def test_the_outputs_stay_the_same(layer: nn.Conv2d | nn.ConvTranspose2d, structure: Structure) -> None:
    x = torch.randn(4, layer.in_channels, 7, 7)
    dense = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU())
    model = settled(se.replace_layers(dense, {"0": structure}), x)
    expected = model(x)
    assert fold_batch_norms_(model) == ["1"]
    assert isinstance(model.get_submodule("1"), nn.Identity)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


def test_where_it_cannot_be_done_nothing_changes() -> None:
    class Depends(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            changed: Tensor = self.inner(x)
            return changed if x.sum() > -1e9 else x

    class Twice(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.conv, self.norm = inner.children()

        def forward(self, x: Tensor) -> Tensor:
            total: Tensor = self.norm(self.conv(x)) + self.norm(x)
            return total

    x = torch.randn(4, 8, 7, 7)
    dense = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
    whole = settled(se.replace_layers(dense, {"0": tucker2((8, 8, 3, 3), 4, 4)}), x)
    split = settled(se.replace_layers(dense, {"0": full([(2, 8, 1, 1), (4, 1, 3, 3)], [3])}), x)
    unknown = nn.Sequential(
        copy.deepcopy(whole.get_submodule("0")), nn.BatchNorm2d(8, track_running_stats=False)
    ).eval()
    for model in (split, Depends(whole), Twice(whole), settled(dense, x), unknown):
        before = copy.deepcopy(model)
        assert fold_batch_norms_(model) == []
        assert torch.equal(model(x), before(x))


def test_a_norm_that_no_convolution_takes_up_becomes_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)
    )
    for norm in (module for module in model if isinstance(module, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    x = torch.randn(2, 3, 8, 8)
    expected = model.eval()(x)
    assert separate_batch_norms_(model) == ["0", "5"]
    assert isinstance(model[0], nn.Conv2d)
    assert isinstance(model[3], nn.BatchNorm2d)
    torch.testing.assert_close(model(x), expected)
