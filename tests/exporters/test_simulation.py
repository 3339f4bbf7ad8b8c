"""The simulation of rounding sees what LiteRT's integers do: in every operator that stands between layers, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import export, get_exporter, predict
from sekron_edge.quantization import simulated
from sekron_edge.structure import full
from sekron_edge.verification import compare

SPLIT = full([(4, 8, 1, 1), (8, 4, 3, 3)], [6])
# Ties fall either way, and one rounding changes all that follow: noise agrees so far, where values need not.
APART_DB = 1.0


class Gated(nn.Module):
    """Squeeze and excite."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand, self.gate = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.gate(self.expand(torch.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return x * scale


class Joined(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(self.conv(x))], 1)


def network(activation: Callable[[], nn.Module], between: nn.Module, *, pooled: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1), nn.BatchNorm2d(32), activation(), between, nn.LazyConv2d(16, 1), activation(),
        nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), nn.LazyLinear(10),
    )  # fmt: skip


def split(*, bias: bool) -> nn.Module:
    layer = nn.Conv2d(32, 32, 3, padding=1, bias=bias)
    between = nn.Sequential(layer, nn.Identity() if bias else nn.BatchNorm2d(32), nn.ReLU())
    return network(nn.ReLU, between)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "swish": lambda: network(nn.SiLU, nn.Identity()),
    "hard swish and gates": lambda: network(nn.Hardswish, Gated(nn.Hardsigmoid())),
    "gates and averages": lambda: network(nn.ReLU, nn.Sequential(Gated(nn.Sigmoid()), nn.AvgPool2d(2)), pooled=2),
    "elu, joined": lambda: network(nn.ELU, Joined()),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), *network(nn.ReLU, nn.MaxPool2d(2))),  # type: ignore[misc]
    "split outputs, norm": lambda: split(bias=False),
    "split outputs, bias": lambda: split(bias=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_as_noisy_as_its_simulation(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, calibration, x = KINDS[kind](), torch.randn(64, 8, 12, 12), torch.randn(64, 8, 12, 12)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.randn(64, 8, 12, 12))
    for norm in [own for own in model.modules() if isinstance(own, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.3, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    if kind.startswith("split"):
        model = se.replace_layers(model, {"3.0": SPLIT})
    model.eval()
    artifact = export(model, (x[:1],), format="litert", precision="int8", out=tmp_path, calibration=(calibration,))
    session = get_exporter("litert").load(artifact)
    file = np.concatenate([predict(session, artifact, [one[None].numpy()])[0] for one in x])
    with torch.no_grad():
        exact, rounded = model(x).numpy(), simulated(model, calibration)(x).numpy()
    seen, real = compare([exact], [rounded]).snr_db, compare([exact], [file]).snr_db
    assert abs(seen - real) < APART_DB


def test_executorch_rounds_after_clamps_not_before_them(tmp_path: Path) -> None:
    """Values that ReLU6 cuts off take no part of the range."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU6(), nn.Conv2d(16, 8, 1)).eval(), torch.randn(64, 8, 12, 12)
    first = model.get_submodule("0").get_parameter("weight")
    first.data *= 40  # to some twenty times the clamp
    artifact = export(model, (x[:1],), format="executorch", precision="int8", out=tmp_path, calibration=(x,))
    assert artifact.delegated == 1
    session = get_exporter("executorch").load(artifact)
    file = np.concatenate([predict(session, artifact, [one[None].numpy()])[0] for one in x])
    with torch.no_grad():
        exact, rounded = model(x).numpy(), simulated(model, x)(x).numpy()
    assert compare([exact], [file]).snr_db > compare([exact], [rounded]).snr_db - 3
