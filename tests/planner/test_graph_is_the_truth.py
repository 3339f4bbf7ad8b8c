"""Every operator with weights has a row in the plan, and MACs are those that torch counts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sekron_edge.budget import Budget
from sekron_edge.planner import Plan, score
from tests.cost_models import MacsAreTime


def counted_macs(model: nn.Module, *inputs: Tensor) -> int:
    """Count the MACs of a model as torch does, with fused kernels taken apart: it does not count those on a CPU."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
        FlopCounterMode(display=False) as counter,
    ):
        model.eval()(*inputs)
    torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2


def dense_plan(model: nn.Module, *inputs: Tensor) -> Plan:
    return score(model, inputs, MacsAreTime()).plan(Budget(), profile="host", runtime="litert")


class Functional(nn.Module):
    """Uses its parameters through functions."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 4, 3, 3))
        self.transposed = nn.Parameter(torch.randn(8, 2, 3, 3))
        self.matrix = nn.Parameter(torch.randn(6, 5))
        self.tensor = nn.Parameter(torch.randn(2, 5, 5))
        self.scaled = nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel, stride=2, padding=1)
        x = F.conv_transpose2d(x, self.transposed, stride=2, groups=2)
        x = F.conv2d(x, self.scaled * 2, padding="same")
        x = x[..., :6] @ self.matrix
        y: Tensor = torch.einsum("bchw,kwv->bkchv", x, self.tensor)
        return y @ y.mT


class Sequence(nn.Module):
    """Recurrences, attention and a table whose values are a layer's weights as well."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.decoder = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
        self.lstm = nn.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(24, 8, batch_first=True)
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        values = self.table(x)
        y = self.decoder(values, self.encoder(values))
        y, _ = self.lstm(y)
        y, _ = self.gru(y)
        logits: Tensor = self.out(y)
        return logits


class Blocks(nn.Module):
    """Computes within blocks of other settings, and with constants alone."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Conv1d(2, 4, 1)
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y = self.layer(x) @ x.mT
        added: Tensor = y + self.places(torch.ones(1, 2, 4))
        return added


class Own(nn.Linear):
    """A subclass that computes what its base does."""


class Doubled(nn.Linear):
    """A subclass that does not."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def image(*shape: int) -> Tensor:
    return torch.randn(1, *shape)


NETWORKS = {
    "functional": (Functional(), image(4, 10, 10)),
    "sequence": (Sequence(), torch.randint(0, 12, (1, 7))),
    "subclasses": (nn.Sequential(Own(8, 8), Doubled(8, 8)), image(8)),
    "hooks": (
        nn.Sequential(
            nn.utils.weight_norm(nn.Conv1d(4, 8, 3)), nn.utils.spectral_norm(nn.Conv1d(8, 8, 3)), nn.Conv1d(8, 4, 1)
        ),
        image(4, 9),
    ),
    "blocks": (Blocks(), image(4, 6)),
    "norms": (nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.PReLU(8), nn.BatchNorm2d(8)), image(4, 9, 9)),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_macs_and_parameters_are_those_of_the_network(name: str) -> None:
    model, inputs = NETWORKS[name]
    plan = dense_plan(model.eval(), inputs)
    assert plan.dense.macs == counted_macs(model, inputs)
    assert plan.dense.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert all(layer.reason for layer in plan.layers)


def reasons(plan: Plan) -> dict[str, str]:
    return {layer.name: layer.reason for layer in plan.layers if "best choice" not in layer.reason}


def test_weights_outside_of_layers_have_a_row_with_its_reason() -> None:
    found = reasons(dense_plan(*NETWORKS["functional"]))
    assert list(found) == ["kernel", "transposed", "Conv2d", "matrix", "tensor"]
    assert "through a function" in found["kernel"]
    assert "computed from scaled at every run" in found["Conv2d"]
    assert "nn.Linear" in found["matrix"]


def test_recurrences_attention_and_tied_weights_have_rows() -> None:
    found = reasons(dense_plan(*NETWORKS["sequence"]))
    assert {"encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.1.self_attn.out_proj.weight"} <= set(found)
    assert {"LSTM", "GRU"} <= {reason.split()[0] for reason in found.values()}
    assert "tied to that of another Embedding" in found["out"]
    assert "looks values up" in found["out.weight"]


def test_subclasses_count_where_they_compute_what_their_base_does() -> None:
    plan = dense_plan(*NETWORKS["subclasses"])
    assert {layer.name: layer.candidates > 1 for layer in plan.layers} == {"0": True, "1.weight": False}


def test_a_layer_whose_weight_is_also_used_through_a_function_stays_dense() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = F.linear(self.layer(x), self.layer.weight)
            return y

    model, inputs = Shared(), image(8)
    plan = dense_plan(model, inputs)
    assert "also used through a function" in reasons(plan)["layer"]
    assert plan.dense.macs == 2 * 64
    assert plan.dense.parameters == 72
