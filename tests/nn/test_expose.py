"""Weights that are used outside of layers become layers, and the model computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.nn import expose_layers, operations, replace_layers, supported_layers
from sekron_edge.structure import weight_svd

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*_flat_weights.*:UserWarning")


def outputs(model: nn.Module, inputs: pytrees.Inputs) -> list[Tensor]:
    with torch.no_grad():
        return pytrees.tensors(pytrees.call(model.eval(), inputs))


@pytest.fixture(autouse=True)
def no_fused_kernel() -> Iterator[None]:
    """Compare to what is exported: PyTorch's fused kernel for transformers is not, and zeroes padded places."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def hidden(model: nn.Module, inputs: pytrees.Inputs) -> dict[str, str]:
    return {name: layer.reason for name, layer in operations(model, inputs).hidden.items()}


def factorized(model: nn.Module) -> nn.Module:
    """Give every layer that can have them factors of its full rank: the model still computes the same."""
    layers, _ = supported_layers(model)
    structures = {}
    for name, layer in layers.items():
        weight = layer.get_parameter("weight")
        groups = int(getattr(layer, "groups", 1))
        shape = (weight.shape[0] // groups, *weight.shape[1:])
        if "Transpose" in type(layer).__name__:
            shape = (weight.shape[1], weight.shape[0] // groups, *weight.shape[2:])
        structures[name] = weight_svd(shape, min(shape[0], prod(shape[1:])))
    return replace_layers(model, structures)


def check(model: nn.Module, inputs: pytrees.Inputs) -> nn.Module:
    """Expose a model: it must compute the same, with factors as well, in PyTorch and in a graph; return it."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = outputs(model, inputs)
    exposed = expose_layers(model, inputs)
    assert not hidden(exposed, inputs)
    for changed in (exposed, factorized(exposed)):
        for got, wanted in zip(outputs(changed, inputs), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
        operations(changed, inputs)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(outputs(model, inputs), expected)
    return exposed


class Called(nn.Module):
    """Calls a function of the input and of itself."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.body = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *args: Tensor) -> Any:
        return self.body(self, *args)


SEQUENCE = torch.randn(1, 5, 8)

CONTAINERS: dict[str, tuple[nn.Module, pytrees.Inputs]] = {
    "sequential": (nn.Sequential(nn.Conv1d(5, 4, 3), nn.Sequential(nn.ReLU(), nn.Conv1d(4, 4, 3))), SEQUENCE),
    "module list": (
        Called(lambda m, x: m.layers[1](m.layers[0](x)), layers=nn.ModuleList([nn.Linear(8, 4), nn.Linear(4, 4)])),
        SEQUENCE,
    ),
    "module dict": (Called(lambda m, x: m.layers["a"](x), layers=nn.ModuleDict({"a": nn.Linear(8, 4)})), SEQUENCE),
    "parameter list": (
        Called(lambda m, x: F.linear(x, m.values[0]), values=nn.ParameterList([torch.randn(6, 8)])), SEQUENCE,
    ),
    "parameter dict": (
        Called(lambda m, x: F.linear(x, m.values["a"]), values=nn.ParameterDict({"a": torch.randn(6, 8)})), SEQUENCE,
    ),
    "encoder layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), SEQUENCE),
    "encoder layer, norm first": (nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, activation="gelu"), SEQUENCE),
    "encoder": (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2), SEQUENCE),
    "encoder with a mask": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        {"src": SEQUENCE, "src_key_padding_mask": torch.tensor([[False, False, False, True, True]])},
    ),
    "decoder": (
        nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2), (SEQUENCE, SEQUENCE + 1),
    ),
    "transformer": (nn.Transformer(8, 2, 1, 1, 16, batch_first=True), (SEQUENCE, SEQUENCE + 1)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*nested_tensor.*", "ignore:.*batch_first was not True.*")
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_runs_with_factors(name: str) -> None:
    model, inputs = CONTAINERS[name]
    check(model.eval(), inputs)


def test_with_factors_the_fused_kernel_of_transformers_is_not_taken() -> None:
    model, inputs = CONTAINERS["encoder"]
    torch.backends.mha.set_fastpath_enabled(True)
    small = factorized(expose_layers(model.eval(), inputs))
    torch.testing.assert_close(outputs(small, inputs), outputs(model, inputs), rtol=1e-3, atol=1e-4)


@given(
    batch_first=st.booleans(),
    bias=st.booleans(),
    need_weights=st.booleans(),
    mask=st.sampled_from([None, "boolean", "added", "by head", "padding"]),
    sizes=st.sampled_from([None, (6, 7)]),
)
@settings(max_examples=12, deadline=None)
def test_attention_computes_the_same(
    batch_first: bool, bias: bool, need_weights: bool, mask: str | None, sizes: tuple[int, int] | None
) -> None:
    torch.manual_seed(0)
    kdim, vdim = sizes or (8, 8)
    attention = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first, kdim=kdim, vdim=vdim)
    query, key, value = torch.randn(2, 4, 8), torch.randn(2, 5, kdim), torch.randn(2, 5, vdim)
    if not batch_first:
        query, key, value = (each.transpose(0, 1) for each in (query, key, value))
    masks = {
        None: {},
        "boolean": {"attn_mask": torch.tensor([[False] * 4 + [True]] * 4)},
        "added": {"attn_mask": torch.randn(4, 5)},
        "by head": {"attn_mask": torch.randn(4, 4, 5)},
        "padding": {"key_padding_mask": torch.tensor([[False] * 5, [False] * 3 + [True] * 2])},
    }[mask]

    model = Called(lambda m, q, k, v: m.attention(q, k, v, need_weights=need_weights, **masks), attention=attention)
    check(model.eval(), (query, key, value))


def test_self_attention_projects_once() -> None:
    exposed = check(CONTAINERS["encoder layer"][0].eval(), SEQUENCE)
    assert {"self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2"} == set(supported_layers(exposed)[0])


def test_attention_that_adds_to_keys_stays_and_says_so() -> None:
    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True)
    model = Called(lambda m, x: m.attention(x, x, x)[0], attention=attention).eval()
    exposed = expose_layers(model, SEQUENCE)
    assert "through a function" in hidden(exposed, SEQUENCE)["attention.in_proj_weight"]


@given(
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
    layers=st.integers(1, 2),
    both=st.booleans(),
    bias=st.booleans(),
    batch_first=st.booleans(),
    batched=st.booleans(),
    started=st.booleans(),
)
@settings(max_examples=14, deadline=None)
def test_recurrences_compute_the_same(
    kind: Any, layers: int, both: bool, bias: bool, batch_first: bool, batched: bool, started: bool
) -> None:
    torch.manual_seed(0)
    recurrence = kind(8, 6, layers, bias=bias, bidirectional=both, batch_first=batch_first)
    x = torch.randn(2, 4, 8) if batched else torch.randn(4, 8)
    batch = (2 if batch_first else 4,) if batched else ()
    state: Any = torch.randn(layers * (1 + both), *batch, 6)
    state = (state, state + 1) if kind is nn.LSTM else state
    model = Called(lambda m, x: m.recurrence(x, state) if started else m.recurrence(x), recurrence=recurrence)
    check(model.eval(), x)


def test_a_long_recurrence_stays_and_says_so() -> None:
    model = nn.Sequential(nn.GRU(4, 4, batch_first=True)).eval()
    x = torch.randn(1, 300, 4)
    (reason,) = hidden(expose_layers(model, x), x).values()
    assert "GRU runs its matrices within one operator" in reason


IMAGE = torch.randn(1, 4, 9, 9)


def test_parameters_handed_to_functions() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = F.conv2d(F.pad(x, (0, 1, 0, 1)), m.kernel, m.bias, stride=2)
        x = F.conv_transpose2d(x, m.spread, stride=(2, 1), padding=1, groups=2)
        y: Tensor = F.linear(x, m.matrix)
        return y

    sizes = {"kernel": (8, 4, 3, 3), "bias": (8,), "spread": (8, 3, 3, 3), "matrix": (5, 4)}
    model = Called(forward, **{name: torch.randn(size) for name, size in sizes.items()})
    exposed = check(model, IMAGE)
    assert list(supported_layers(exposed)[0]) == ["kernel.layer", "spread.layer", "matrix.layer"]
    assert sum(p.numel() for p in exposed.parameters()) == sum(p.numel() for p in model.parameters())


def test_a_layers_weight_handed_to_a_function_as_swin_does() -> None:
    class Window(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            bias = self.qkv.bias.clone()
            bias[8:16].zero_()
            y: Tensor = F.linear(x, self.qkv.weight, bias)
            return y if self.qkv.weight.shape[0] == 24 else -y

    check(Window(), SEQUENCE)


def test_a_module_that_is_one_convolution_becomes_that_layer() -> None:
    class Standardized(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, (self.weight - mean) / std, self.bias, self.stride, self.padding)

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.randn(4, 8))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = F.linear(x, 2 * self.own)
            return y

    exposed = check(nn.Sequential(Standardized(4, 8, 3, padding=1), nn.Flatten(2), nn.Linear(81, 8), Doubled()), IMAGE)
    assert [type(layer) for layer in supported_layers(exposed)[0].values()] == [nn.Conv2d, nn.Linear, nn.Linear]


def test_padding_that_depends_on_the_input_is_kept() -> None:
    class Same(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            total = max((-(-x.shape[-1] // 2) - 1) * 2 + 3 - x.shape[-1], 0)
            x = F.pad(x, (total // 2, total - total // 2) * 2)
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    exposed = check(nn.Sequential(Same(4, 8, 3, stride=2)), torch.randn(1, 4, 8, 8))
    assert list(supported_layers(exposed)[0]) == ["0.weight.layer"]


def test_parametrizations_and_norms_of_weights_are_computed_once() -> None:
    model = nn.Sequential(
        nn.utils.weight_norm(nn.Conv2d(4, 4, 3)),
        nn.utils.spectral_norm(nn.Conv2d(4, 4, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
        nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)),
    ).eval()
    model(IMAGE)  # hooks leave what they computed in the layers, as part of autograd's graph
    exposed = check(model, IMAGE)
    assert [type(layer).__name__ for layer in exposed.modules()][1:] == ["Conv2d"] * 4 + ["Linear"]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(kind: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).to(kind).eval()
    exposed = expose_layers(model, IMAGE.to(kind))
    assert {value.dtype for value in exposed.state_dict().values()} == {torch.float32, torch.int64}
    assert next(model.parameters()).dtype == kind


def test_a_network_of_plain_layers_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8))
    exposed = check(model.eval(), IMAGE)
    assert str(exposed) == str(model)
    assert list(exposed.state_dict()) == list(model.state_dict())


def test_tied_weights_stay_tied() -> None:
    table, out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
    out.weight = table.weight
    exposed = expose_layers(nn.Sequential(table, out), torch.tensor([[1, 2]]))
    assert exposed.get_parameter("0.weight") is exposed.get_parameter("1.weight")
