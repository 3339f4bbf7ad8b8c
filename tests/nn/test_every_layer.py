"""Every coupling in every kind of layer, with attributes and splits that nobody chose by hand."""

import copy
from collections.abc import Sequence
from math import prod
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import sekron_edge as se
from sekron_edge.nn import (
    FactorizedConv,
    FactorizedLinear,
    FakeQuantized,
    factorize_layer,
    input_moments,
    layer_weight,
    rebuilt_kernels,
)
from sekron_edge.nn._rebuilt import _trains_slowly
from sekron_edge.planner._costs import Call, Pricing, layer_cost
from sekron_edge.primitives import Primitive
from sekron_edge.structure import Shape, Structure, chain, diagonal, full, ring, star
from sekron_edge.tensor import FactorizedTensor
from tests.narrowing import layer_at

# A layer of any kind, a structure of its weight, and an input.
Case = tuple[Any, Structure, Tensor]
CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
COUPLINGS = ("full", "chain", "ring", "diagonal", "star")
KINDS = ("Linear", *(f"{kind}{dims}d" for kind in ("Conv", "ConvTranspose") for dims in (1, 2, 3)))


def coupled(coupling: str, shapes: list[Shape], rank: int) -> Structure:
    """A structure of any coupling; ranks differ from label to label."""
    count = len(shapes)
    if coupling == "diagonal":
        return diagonal(shapes, rank)
    build, labels = {
        "full": (full, count - 1),
        "chain": (chain, count - 1),
        "ring": (ring, count),
        "star": (star, count),
    }[coupling]
    return build(shapes, [1 + (rank + label) % 3 for label in range(labels)])


def factorized(layer: Any, structure: Structure) -> FactorizedConv | FactorizedLinear:
    groups = getattr(layer, "groups", 1)
    values = [
        tuple(torch.randn(structure.value_shape(k)) for k in range(len(structure.factors))) for _ in range(groups)
    ]
    return factorize_layer(layer, [FactorizedTensor(structure, one) for one in values])


def dense_twin(layer: Any, new: FactorizedConv | FactorizedLinear) -> Any:
    twin = copy.deepcopy(layer)
    twin.weight.data = new.reconstruct().reshape(twin.weight.shape)
    return twin


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> Case:
    """A layer, a structure of its weight, and an input."""
    kind, coupling = draw(st.sampled_from(kinds)), draw(st.sampled_from(COUPLINGS))
    dims = 0 if kind == "Linear" else int(kind[-2])
    count = draw(st.integers(2, 3))

    def axis(low: int, high: int) -> st.SearchStrategy[Shape]:
        return st.lists(st.integers(low, high), min_size=dims, max_size=dims).map(tuple)

    channels = [(draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(count)]
    # Taps of one axis in one factor, or in two.
    taps = st.lists(st.sampled_from((1, 1, 2) if dims == 3 else (1, 1, 2, 3)), min_size=dims, max_size=dims)
    kernels = [draw(taps) for _ in range(count)]
    shapes = [(*pair, *kernel) for pair, kernel in zip(channels, kernels, strict=True)]
    structure = coupled(coupling, shapes, draw(st.integers(1, 4)))
    outputs, inputs, *kernel = structure.shape
    bias = draw(st.booleans())
    if kind == "Linear":
        return nn.Linear(inputs, outputs, bias), structure, torch.randn(*draw(axis(0, 0)), 5, inputs)
    groups = draw(st.integers(1, 2))
    stride, dilation = draw(axis(1, 3)), draw(axis(1, 2))
    options: dict[str, Any] = {"groups": groups, "bias": bias, "stride": stride, "dilation": dilation}
    padding = draw(axis(0, 3))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if kind.startswith("ConvTranspose"):
        extra = draw(axis(0, 2))
        options["output_padding"] = tuple(
            min(e, max(s, d) - 1) for e, s, d in zip(extra, stride, dilation, strict=True)
        )
        size = [max(3, 2 + 2 * p // s) for p, s in zip(padding, stride, strict=True)]
        layer = TRANSPOSED[dims](inputs * groups, outputs * groups, tuple(kernel), padding=padding, **options)
    else:
        mode = draw(st.sampled_from(("zeros", "zeros", "reflect", "circular", "replicate")))
        if mode == "reflect" and dims == 3 and padding != (0, 0, 0):
            mode = "zeros"
        same = stride == (1,) * dims and draw(st.booleans())
        size = [r + draw(st.integers(4, 6)) for r in reach]
        layer = CONVOLUTIONS[dims](
            inputs * groups,
            outputs * groups,
            tuple(kernel),
            padding="same" if same else padding,
            padding_mode=mode,
            **options,
        )
    return layer, structure, torch.randn(draw(st.integers(1, 2)), inputs * groups, *size)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_is_the_dense_one_with_the_reconstructed_weight(kind: str) -> None:
    @given(cases((kind,)), st.integers(0, 2**31))
    @settings(deadline=None, max_examples=60)
    def holds(case: Case, seed: int) -> None:
        torch.manual_seed(seed)
        layer, structure, x = case
        new = factorized(layer, structure)
        expected, actual = dense_twin(layer, new)(x), new(x)
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max())
        actual.square().sum().backward()
        assert all(parameter.grad is not None for parameter in new.parameters())
        assert sum(weight.numel() for weight in new.weights) == structure.num_params * getattr(layer, "groups", 1)

    holds()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@given(cases().filter(lambda case: _trains_slowly(factorized(case[0], case[1]))), st.integers(0, 2**31))
@settings(deadline=None, max_examples=150)
def test_a_rebuilt_kernel_gives_the_same_outputs_and_gradients(case: Case, seed: int) -> None:
    torch.manual_seed(seed)
    layer, structure, x = case
    new = factorized(layer, structure).double()
    x = x.double()

    def found() -> tuple[Tensor, list[Tensor]]:
        new.zero_grad()
        outputs = new(x)
        outputs.square().sum().backward()
        return outputs.detach(), [
            parameter.grad.clone() for parameter in new.parameters() if parameter.grad is not None
        ]

    expected, gradients = found()
    with rebuilt_kernels(new), mock.patch("sekron_edge.nn._layers._run", side_effect=AssertionError):
        outputs, rebuilt = found()
    assert (outputs - expected).abs().max() <= 1e-10 * max(1.0, float(expected.abs().max()))
    for actual, wanted in zip(rebuilt, gradients, strict=True):
        assert (actual - wanted).abs().max() <= 1e-10 * max(1.0, float(wanted.abs().max()))
    assert torch.equal(new(x), expected)


def test_what_is_rounded_is_the_factors() -> None:
    structure = full([(2, 3, 1, 3), (3, 2, 3, 1)], [2])
    new = factorized(nn.Conv2d(6, 6, 3), structure)
    with rebuilt_kernels(FakeQuantized(nn.Sequential(new), [(torch.randn(2, 6, 8, 8),)])):
        assert not new.rebuilds
    with rebuilt_kernels(nn.Sequential(new)):
        assert new.rebuilds
    assert not new.rebuilds


class Counting(TorchDispatchMode):
    """Counts what runs: multiply-accumulates, values written, values permuted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.macs = self.written = self.permuted = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name()
        if name == "aten::convolution":
            x, weight, transposed = args[0], args[1], args[6]
            self.macs += x.numel() * weight[0].numel() if transposed else out.numel() * weight[0].numel()
            self.written += out.numel()
        elif name in ("aten::addmm", "aten::mm"):
            matrix = args[-2]
            self.macs += out.numel() * matrix.shape[-1]
            self.written += out.numel()
        elif name == "aten::permute":
            self.permuted += out.numel()
            self.written += out.numel()
        return out


class Free:
    source = "a test's own"

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        return 0.0


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@given(cases())
@settings(deadline=None, max_examples=200)
def test_prices_are_what_is_counted(case: Case) -> None:
    layer, structure, x = case
    new = factorized(layer, structure)
    with Counting() as counted, torch.no_grad():
        new(x)
    cost = layer_cost(structure, layer, [Call(tuple(x.shape))], Pricing(Free()))
    assert cost.macs == counted.macs
    assert cost.activation_bytes == 4 * counted.written
    assert cost.permuted_bytes == 4 * counted.permuted
    assert cost.parameters == sum(parameter.numel() for parameter in new.parameters())


def example(kind: str, coupling: str) -> Case:
    """A layer with attributes, and a structure of it that splits channels."""
    if kind == "Linear":
        structure = coupled(coupling, [(3, 2), (2, 2), (2, 3)], 2)
        return nn.Linear(12, 12), structure, torch.randn(4, 12)
    dims = int(kind[-2])
    kernel, ones = (3,) * dims, (1,) * dims
    structure = coupled(coupling, [(3, 2, *ones), (2, 2, *kernel), (2, 2, *ones)], 2)
    build = (TRANSPOSED if kind.startswith("ConvTranspose") else CONVOLUTIONS)[dims]
    return build(16, 24, 3, stride=2, padding=1, groups=2), structure, torch.randn(2, 16, *(6,) * dims)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_module_like_any_other(kind: str, coupling: str) -> None:
    torch.manual_seed(0)
    layer, structure, x = example(kind, coupling)
    new = factorized(layer, structure).eval()
    expected = new(x)
    new(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in new.parameters())
    twin = factorized(layer, structure)
    twin.load_state_dict(new.state_dict())
    assert torch.equal(copy.deepcopy(twin)(x), expected)
    exported = torch.export.export(copy.deepcopy(new), (x,))
    torch.testing.assert_close(exported.module()(x), expected)
    half = copy.deepcopy(new).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).norm() <= 0.03 * expected.norm()
    double = copy.deepcopy(new).double()(x.double())
    assert (double - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("ConvTranspose")])
def test_a_transposed_layer_is_decomposed_and_replaced(kind: str) -> None:
    layer, structure, x = example(kind, "full")
    model = nn.Sequential(layer)
    small = se.replace_layers(model, {"0": structure})
    assert layer_weight(layer).shape[1:] == structure.shape
    near = torch.stack([se.decompose_tensor(group, structure).reconstruct() for group in layer_weight(layer)])
    assert torch.allclose(layer_weight(dense_twin(layer, layer_at(small, "0", FactorizedConv))), near, atol=1e-6)
    taps, ones = (3,) * (x.ndim - 2), (1,) * (x.ndim - 2)
    of_full_rank = full([(6, 4, *ones), (2, 2, *taps)], [min(24, 4 * prod(taps))])
    whole = se.replace_layers(model, {"0": of_full_rank})
    torch.testing.assert_close(whole(x), layer(x), rtol=1e-4, atol=1e-5)


@given(cases(tuple(kind for kind in KINDS if kind.startswith("ConvTranspose"))))
@settings(deadline=None, max_examples=60)
def test_the_moment_of_a_transposed_layer_gives_the_mean_square_of_its_output(
    case: Case,
) -> None:
    layer, _, x = case
    layer, x = layer.double(), x.double()
    (moment,) = input_moments(nn.Sequential(layer), (x,), {"0": layer}).values()
    rows = layer_weight(layer).flatten(2)
    if layer.bias is not None:
        layer.bias.data.zero_()
    output = layer(x).detach()
    predicted = float(((rows @ moment) * rows).sum())
    assert predicted == pytest.approx(float(output.square().sum()) / (output.numel() / output.shape[1]), rel=1e-9)
