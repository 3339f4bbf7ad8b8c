"""ExecuTorch's files keep the exporters' contract, and go to XNNPACK whole."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import export, get_exporter, predict
from sekron_edge.testing import ExporterContract
from tests.strategies import factorized_structures


class TestExecuTorch(ExporterContract):
    format = "executorch"
    tolerance: ClassVar = {"fp32": 1e-4}


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2])
def test_xnnpack_takes_every_operator_of_every_structure(groups, tmp_path):
    class Each(nn.Module):
        def __init__(self):
            super().__init__()
            dense = nn.Sequential(nn.Conv2d(8 * groups, 12 * groups, 3, padding=1, groups=groups))
            self.layers = nn.ModuleList(
                se.replace_layers(dense, {"0": structure}) for structure in factorized_structures().values()
            )

        def forward(self, x):
            return torch.cat([layer(x) for layer in self.layers], 1)

    model, x = Each().eval(), torch.randn(1, 8 * groups, 12, 12)
    artifact = export(model, (x,), format="executorch", out=tmp_path)
    assert artifact.delegated == 1.0
    (actual,) = predict(get_exporter("executorch").load(artifact), artifact, [x.numpy()])
    np.testing.assert_allclose(actual, model(x).detach().numpy(), atol=1e-4)
