"""XNNPACK, in LiteRT as in ExecuTorch, takes every operator of every structure."""

import numpy as np
import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import export, get_exporter, predict
from tests.strategies import factorized_structures


class Each(nn.Module):
    """Every structure in a branch of its own."""

    def __init__(self, groups):
        super().__init__()
        dense = nn.Sequential(nn.Conv2d(8 * groups, 12 * groups, 3, padding=1, groups=groups))
        self.layers = nn.ModuleList(
            se.replace_layers(dense, {"0": structure}) for structure in factorized_structures().values()
        )

    def forward(self, x):
        # Added up: XNNPACK concatenates five tensors at most.
        total = self.layers[0](x)
        for layer in self.layers[1:]:
            total = total + layer(x)
        return total


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", ["executorch", "litert"])
def test_every_operator_of_every_structure_is_delegated(name, groups, tmp_path):
    model, x = Each(groups).eval(), torch.randn(1, 8 * groups, 12, 12)
    artifact = export(model, (x,), format=name, out=tmp_path)
    assert artifact.delegated == 1.0
    (actual,) = predict(get_exporter(name).load(artifact), artifact, [x.numpy()])
    np.testing.assert_allclose(actual, model(x).detach().numpy(), atol=1e-4)


@pytest.mark.slow
def test_what_litert_keeps_for_itself_is_counted(tmp_path):
    class Strided(nn.Module):
        def forward(self, x):
            return torch.relu(x)[:, :, ::2, ::2] + 1

    artifact = export(Strided(), (torch.randn(1, 4, 8, 8),), format="litert", out=tmp_path)
    assert 0 < artifact.delegated < 1
