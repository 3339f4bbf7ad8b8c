"""The factor convolution equals the dense one with the reconstructed kernel, whatever the attributes."""

import copy
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import ConfigError, UnsupportedLayerError
from sekron_edge.nn import (
    ConvGeometry,
    FactorizedConv,
    FactorizedLinear,
    factorize_layer,
    layer_weight,
    replace_layers,
    schedule,
    supported_layers,
)
from sekron_edge.nn._schedule import schedule_in_order
from sekron_edge.structure import Structure, chain, full, ring, tucker2, weight_svd
from sekron_edge.tensor import FactorizedTensor
from tests.strategies import factorized_structures

TOLERANCE = 1e-5

STRUCTURES = factorized_structures()
ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"bias": False, "padding": 1},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0)},
    {"dilation": 2, "padding": 2, "stride": (2, 1)},
    {"padding": "same"},
    {"padding": "same", "dilation": (1, 2)},
    {"padding": "valid"},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": (1, 2), "padding_mode": "circular", "stride": 2},
    {"padding": 1, "padding_mode": "replicate"},
]


def random_factors(structure: Structure, count: int = 1) -> list[FactorizedTensor]:
    return [
        FactorizedTensor(structure, tuple(torch.randn(structure.value_shape(k)) for k in range(len(structure.factors))))
        for _ in range(count)
    ]


def assert_same(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear, new: FactorizedConv | FactorizedLinear, x: Tensor
) -> None:
    dense = copy.deepcopy(layer)
    dense.weight.data = new.reconstruct().reshape(dense.weight.shape)
    expected, actual = dense(x), new(x)
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("attributes", ATTRIBUTES, ids=str)
def test_conv2d(name: str, attributes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 3, **attributes)
    assert_same(layer, factorize_layer(layer, random_factors(STRUCTURES[name])), torch.randn(2, 8, 9, 10))


@pytest.mark.parametrize("name", STRUCTURES)
def test_grouped_conv2d(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 24, 3, groups=2, padding=1, stride=2)
    assert_same(layer, factorize_layer(layer, random_factors(STRUCTURES[name], 2)), torch.randn(2, 16, 9, 9))


@pytest.mark.parametrize("kernel", [2, 4, (4, 2)])
def test_even_kernels_with_same_padding_are_asymmetric(kernel: int | tuple[int, int]) -> None:
    layer = nn.Conv2d(4, 6, kernel, padding="same")
    structure = weight_svd(tuple(layer.weight.shape), 3)
    assert_same(layer, factorize_layer(layer, random_factors(structure)), torch.randn(1, 4, 7, 8))


def test_a_kernel_split_within_a_mode_dilates_the_outer_factor() -> None:
    layer = nn.Conv2d(4, 6, (9, 4), padding=(4, 1), stride=(1, 2))
    structure = full([(2, 2, 3, 2), (3, 2, 3, 2)], [3])
    assert_same(layer, factorize_layer(layer, random_factors(structure)), torch.randn(2, 4, 12, 11))


@pytest.mark.parametrize("attributes", [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}])
def test_conv1d_and_conv3d(attributes: dict[str, Any]) -> None:
    conv1d = nn.Conv1d(8, 12, 3, **attributes)
    for structure in (
        weight_svd((12, 8, 3), 4),
        tucker2((12, 8, 3), 4, 3),
        full([(3, 2, 3), (4, 4, 1)], [3]),
    ):
        assert_same(conv1d, factorize_layer(conv1d, random_factors(structure)), torch.randn(2, 8, 15))
    conv3d = nn.Conv3d(4, 6, 3, **attributes)
    structure = full([(2, 2, 3, 1, 1), (3, 2, 1, 3, 3)], [3])
    assert_same(conv3d, factorize_layer(conv3d, random_factors(structure)), torch.randn(1, 4, 7, 6, 5))


@pytest.mark.parametrize(
    "structure",
    [
        weight_svd((12, 8), 3),
        full([(3, 4), (4, 2)], [5]),
        full([(3, 2), (2, 2), (2, 2)], [2, 3]),
        ring([(2, 2), (3, 2), (2, 2)], [2, 3, 2]),
    ],
    ids=str,
)
@pytest.mark.parametrize("leading", [(5,), (2, 3), ()])
def test_linear(structure: Structure, leading: tuple[int, ...]) -> None:
    layer = nn.Linear(8, 12)
    assert_same(layer, factorize_layer(layer, random_factors(structure)), torch.randn(*leading, 8))


@pytest.mark.parametrize("name", STRUCTURES)
def test_in_any_order_of_factors_it_is_the_same_convolution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    structure = STRUCTURES[name]
    layer = nn.Conv2d(16, 24, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    factors, x = random_factors(structure, 2), torch.randn(2, 16, 11, 13)
    orders = list(permutations(range(len(structure.factors))))
    for order in orders[:: max(1, len(orders) // 12)]:
        monkeypatch.setattr("sekron_edge.nn._layers.schedule", lambda s, g, order=order: schedule_in_order(s, g, order))
        assert_same(layer, factorize_layer(layer, factors), x)


def test_the_order_does_not_depend_on_how_a_layer_pads_and_large_kernels_have_one() -> None:
    for structure in STRUCTURES.values():
        orders = {
            tuple(step.factor for step in schedule(structure, ConvGeometry((1, 1), padding, (1, 1))).steps)
            for padding in ((0, 0), (1, 1), (2, 3))
        }
        assert len(orders) == 1
    # A kernel larger than any small image: few channels first in, few last out.
    wide = chain([(64, 1, 1), (1, 1, 512), (1, 64, 1)], [8, 8])
    assert [step.factor for step in schedule(wide, ConvGeometry((1,), (0,), (1,))).steps] == [2, 1, 0]


def test_tucker_begins_with_the_input_channels() -> None:
    plan = schedule(STRUCTURES["tucker"], ConvGeometry((1, 1), (1, 1), (1, 1)))
    assert plan.steps[0].factor == 1
    assert plan.steps[-1].factor == 0


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", STRUCTURES)
def test_no_permute_has_more_axes_than_runtimes_take(name: str, groups: int) -> None:
    geometry = ConvGeometry((1, 1), (1, 1), (1, 1), groups)
    for order in permutations(range(len(STRUCTURES[name].factors))):
        plan = schedule_in_order(STRUCTURES[name], geometry, order)
        for moves in (*(step.moves for step in plan.steps), plan.final_moves):
            assert all(len(move.order) <= 5 for move in moves)


def test_a_sample_without_batch_axis() -> None:
    layer = nn.Conv2d(8, 12, 3)
    assert_same(layer, factorize_layer(layer, random_factors(STRUCTURES["gkpd"])), torch.randn(8, 6, 6))


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradients_state_dict_export_and_counts(name: str) -> None:
    torch.manual_seed(0)
    structure = STRUCTURES[name]
    layer = nn.Conv2d(8, 12, 3, padding=1)
    new = factorize_layer(layer, random_factors(structure))
    x = torch.randn(2, 8, 6, 6)
    new(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in new.parameters())
    assert sum(p.numel() for p in new.weights) == structure.num_params
    twin = factorize_layer(layer, random_factors(structure))
    twin.load_state_dict(new.state_dict())
    torch.testing.assert_close(twin(x), new(x))
    exported = torch.export.export(copy.deepcopy(new).eval(), (x,))
    torch.testing.assert_close(exported.module()(x), new(x))


@pytest.mark.parametrize("name", STRUCTURES)
def test_priced_macs_are_those_of_the_convolutions_that_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(8, 12, 3, padding=1, stride=2)
    new = factorize_layer(layer, random_factors(STRUCTURES[name]))
    counted = 0

    def counting(x: Tensor, weight: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
        nonlocal counted
        out = F.conv2d(x, weight, bias, **options)
        counted += out.numel() * weight[0].numel()
        return out

    monkeypatch.setitem(new.forward.__globals__["_CONV"], 2, counting)
    new(torch.randn(2, 8, 9, 9))
    assert counted == sum(primitive.macs for primitive in new.plan.primitives((2, 8, 9, 9)))


def test_nothing_is_permuted_where_no_channel_is_split() -> None:
    for name in ("weight-svd", "spatial-svd", "tucker2", "cp"):
        layer = factorize_layer(nn.Conv2d(8, 12, 3), random_factors(STRUCTURES[name]))
        assert not layer.plan.final_moves
        assert not any(step.moves for step in layer.plan.steps)


def test_rewriting_leaves_the_model_untouched_and_shared_layers_shared() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = self.first
            self.norm = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.second(self.norm(self.first(x)))
            return output

    model = Shared()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layers, _ = supported_layers(model)
    assert list(layers) == ["first"]
    small = replace_layers(model, {"first": weight_svd((8, 8, 3, 3), 8)})
    assert small.first is small.second
    assert isinstance(model.first, nn.Conv2d)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(small.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)


def test_layers_that_stay_dense_say_why() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Embedding(8, 8))
    model[2].weight = model[3].weight
    layers, refused = supported_layers(model)
    assert list(layers) == ["1"]
    assert "depthwise" in refused["0"]
    assert "tied to that of another Embedding" in refused["2"]


def test_errors_name_the_layer() -> None:
    layer = nn.Conv2d(8, 8, 3)
    model = nn.Sequential(layer)
    with pytest.raises(ConfigError, match="no layer 'features'"):
        replace_layers(model, {"features": weight_svd((8, 8, 3, 3), 2)})
    layer.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(UnsupportedLayerError, match=r"layer '0'.*NaN"):
        replace_layers(model, {"0": weight_svd((8, 8, 3, 3), 2)})
    with pytest.raises(UnsupportedLayerError, match="Bilinear"):
        factorize_layer(nn.Bilinear(2, 2, 2), random_factors(weight_svd((2, 2), 1)))


def test_layer_weight_keeps_groups_apart() -> None:
    assert layer_weight(nn.Conv2d(16, 24, 3, groups=2)).shape == (2, 12, 8, 3, 3)
