"""Factorized models without a plan, and trained from scratch."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.errors import StructureError
from sekron_edge.nn import FactorizedConv, FactorizedLinear, initialize_factors_, layer_weight
from sekron_edge.structure import Shape, Structure, diagonal, full, mode_by_mode, ring, star, tucker2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=2), nn.Flatten(), nn.Linear(32 * 16, 8)
    )


def test_each_layer_gets_what_the_function_says() -> None:
    model = network()
    seen: list[tuple[str, type[nn.Module], Shape]] = []

    def structure_for(name: str, layer: nn.Module, shape: Shape) -> Structure | None:
        seen.append((name, type(layer), shape))
        return tucker2(shape, 4, 3) if isinstance(layer, nn.Conv2d) and layer.groups == 2 else None

    small = se.factorize(model, structure_for)
    assert seen == [("0", nn.Conv2d, (16, 3, 3, 3)), ("2", nn.Conv2d, (16, 8, 3, 3)), ("4", nn.Linear, (8, 512))]
    assert isinstance(small.get_submodule("2"), FactorizedConv)
    assert type(small.get_submodule("0")) is nn.Conv2d
    assert type(model.get_submodule("2")) is nn.Conv2d
    with pytest.raises(StructureError, match="the tensor has"):
        se.factorize(model, lambda name, layer, shape: tucker2((16, 3, 3, 3), 2, 2))


STRUCTURES: dict[str, Callable[[Shape], Structure]] = {
    "tucker2": lambda shape: tucker2(shape, 12, 10),
    "sekron-3": lambda shape: full([(8, 4, 3, 1), (4, 2, 1, 3), (1, 4, 1, 1)], [6, 3]),
    "cp": lambda shape: diagonal(mode_by_mode(shape), 20),
    "tensor-ring": lambda shape: ring(mode_by_mode(shape), [3, 4, 5, 3]),
    "tucker": lambda shape: star(mode_by_mode(shape), [10, 12, 3, 3]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_weight_that_the_factors_stand_for_has_hes_variance(name: str) -> None:
    layer = nn.Conv2d(32, 32, 3)
    small = se.factorize(layer, lambda _, __, shape: STRUCTURES[name](shape))
    assert isinstance(small, FactorizedConv)
    assert small.bias is not None
    generator = torch.Generator().manual_seed(0)
    variances = []
    for _ in range(300):
        initialize_factors_(small, generator=generator)
        variances.append(float(small.reconstruct().square().mean()))
    assert sum(variances) / len(variances) == pytest.approx(2 / (32 * 9), rel=0.2)
    assert not small.bias.any()


def test_a_network_that_starts_factorized_learns() -> None:
    model = se.factorize(network(), lambda _, layer, shape: None if len(shape) == 2 else tucker2(shape, 6, 3))
    initialize_factors_(model, generator=torch.Generator().manual_seed(0))
    x, target = torch.randn(64, 3, 8, 8), torch.randint(0, 8, (64,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.1 * losses[0]


def test_linear_layers_too() -> None:
    small = se.factorize(nn.Sequential(nn.Linear(64, 64)), lambda _, __, shape: full([(8, 8), (8, 8)], [4]))
    assert isinstance(small.get_submodule("0"), FactorizedLinear)
    initialize_factors_(small, gain=1.0, generator=torch.Generator().manual_seed(0))
    output = small(torch.randn(4096, 64))
    assert float(output.var()) == pytest.approx(1.0, rel=0.5)
    assert layer_weight(nn.Linear(64, 64)).shape == (1, 64, 64)
