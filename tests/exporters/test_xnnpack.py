"""XNNPACK, in LiteRT as in ExecuTorch, takes every operator of every structure."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import Precision, export, get_exporter, predict
from sekron_edge.structure import Structure
from tests.narrowing import present
from tests.strategies import factorized_structures


class Each(nn.Module):
    """Every structure of one layer, or some, in a branch of its own."""

    def __init__(self, layer: nn.Module, structures: Iterable[Structure]) -> None:
        super().__init__()
        dense = nn.Sequential(layer)
        self.layers = nn.ModuleList(se.replace_layers(dense, {"0": structure}) for structure in structures)

    def forward(self, x: Tensor) -> Tensor:
        # Added up: XNNPACK concatenates five tensors at most.
        total: Tensor = self.layers[0](x)
        for layer in self.layers[1:]:
            total = total + layer(x)
        return total


def assert_taken_whole(model: nn.Module, x: Tensor, name: str, folder: Path, precision: Precision = "fp32") -> None:
    artifact = export(model, (x,), format=name, precision=precision, out=folder, calibration=(x.repeat(4, 1, 1, 1),))
    assert artifact.delegated == 1.0
    (actual,) = predict(get_exporter(name).load(artifact), artifact, [x.numpy()])
    expected = model(x).detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4 if precision == "fp32" else 0.1 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "precision"), [(1, "fp32"), (1, "int8"), (2, "int8")])  # int8 has more conditions
@pytest.mark.parametrize("name", ["executorch", "litert"])
def test_every_operator_of_every_structure_is_delegated(
    name: str, groups: int, precision: Precision, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8 * groups, 12 * groups, 3, padding=1, groups=groups)
    model = Each(layer, factorized_structures().values()).eval()
    assert_taken_whole(model, torch.randn(1, 8 * groups, 12, 12), name, tmp_path, precision)


# LiteRT alone with a stride of one, too: with two there is a structure that it cannot have.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "stride"), [("executorch", 2), ("litert", 1), ("litert", 2)])
def test_those_of_transposed_convolutions_too(name: str, stride: int, tmp_path: Path) -> None:
    structures = factorized_structures()
    if name == "litert" and stride == 2:
        # litert-torch splits a depthwise transposed convolution, and XNNPACK joins five tensors at most.
        del structures["cp"]
    layer = nn.ConvTranspose2d(8, 12, 3, stride=stride, padding=1, output_padding=stride - 1)
    assert_taken_whole(Each(layer, structures.values()).eval(), torch.randn(1, 8, 7, 7), name, tmp_path)


@pytest.mark.slow
def test_what_litert_keeps_for_itself_is_counted(tmp_path: Path) -> None:
    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x)[:, :, ::2, ::2] + 1

    artifact = export(Strided(), (torch.randn(1, 4, 8, 8),), format="litert", out=tmp_path)
    assert 0 < present(artifact.delegated) < 1
