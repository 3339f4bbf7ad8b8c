"""ExecuTorch's files keep the exporters' contract, and go to XNNPACK whole."""

from typing import ClassVar

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import export
from sekron_edge.structure import full, tucker2
from sekron_edge.testing import ExporterContract


class TestExecuTorch(ExporterContract):
    format = "executorch"
    tolerance: ClassVar = {"fp32": 1e-4}


@pytest.mark.slow
@pytest.mark.parametrize(
    "structure", [tucker2((16, 8, 3, 3), 8, 4), full([(4, 4, 3, 1), (4, 2, 1, 3)], [8])], ids=["tucker2", "sekron-2"]
)
def test_xnnpack_takes_every_operator_of_a_factorized_layer(structure, tmp_path):
    model = se.replace_layers(nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)), {"0": structure})
    assert export(model, (torch.randn(1, 8, 12, 12),), format="executorch", out=tmp_path).delegated == 1.0
