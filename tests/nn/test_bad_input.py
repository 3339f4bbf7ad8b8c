"""What cannot be factorized gives one error that names the layer, the value and the limit."""

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.errors import ConfigError, RankError, StructureError, UnsupportedLayerError
from sekron_edge.nn import FactorizedConv
from sekron_edge.structure import Structure, chain, diagonal, full, mode_by_mode, ring, star, tucker2, weight_svd
from tests.narrowing import layer_at

SHAPE = (12, 8, 3, 3)
COUPLINGS = {
    "full": full([(3, 4, 3, 1), (4, 2, 1, 3)], [5]),
    "chain": tucker2(SHAPE, 5, 4),
    "ring": ring(mode_by_mode(SHAPE), [2, 3, 2, 3]),
    "diagonal": diagonal(mode_by_mode(SHAPE), 6),
    "star": star(mode_by_mode(SHAPE), [5, 4, 2, 3]),
}
couplings = pytest.mark.parametrize("coupling", COUPLINGS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3), nn.Sequential(nn.Conv2d(8, 12, 3)))


@couplings
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(coupling: str, value: float) -> None:
    model = network()
    layer_at(model, "1.0", nn.Conv2d).weight.data[3, 2, 1, 0] = value
    with pytest.raises(UnsupportedLayerError, match=r"layer '1\.0': .*1 of 864 values are NaN or infinite"):
        se.replace_layers(model, {"1.0": COUPLINGS[coupling]})


@couplings
def test_a_weight_of_zeros_stays_zero(coupling: str) -> None:
    model = network()
    layer_at(model, "1.0", nn.Conv2d).weight.data.zero_()
    small = se.replace_layers(model, {"1.0": COUPLINGS[coupling]})
    assert not layer_at(small, "1.0", FactorizedConv).reconstruct().any()
    assert torch.isfinite(small(torch.randn(1, 4, 9, 9))).all()


@pytest.mark.parametrize(
    ("structure", "said"),
    [
        (full([(3, 4, 3, 1), (4, 2, 1, 3)], [25]), "r1 must be at most 24, got 25"),
        (weight_svd(SHAPE, 13), "r1 must be at most 12, got 13"),
        (chain([(12, 1, 1, 1), (1, 1, 3, 3), (1, 8, 1, 1)], [5, 9]), "r2 must be at most 8, got 9"),
        (star(mode_by_mode(SHAPE), [5, 4, 4, 3]), "r3 must be at most 3, got 4"),
    ],
    ids=str,
)
def test_ranks_out_of_range(structure: Structure, said: str) -> None:
    with pytest.raises(RankError, match=rf"layer '1\.0': {said}"):
        se.replace_layers(network(), {"1.0": structure})


def test_shapes_that_are_not_the_layers() -> None:
    said = r"layer '1\.0': the structure is for \(12, 8, 5, 5\), the tensor has \(12, 8, 3, 3\)"
    with pytest.raises(StructureError, match=said):
        se.replace_layers(network(), {"1.0": tucker2((12, 8, 5, 5), 4, 4)})
    with pytest.raises(StructureError, match=r"layer '1\.0': .*\(10, 8, 3, 3\)"):
        se.factorize(
            network(), lambda name, _, shape: full([(5, 4, 3, 1), (2, 2, 1, 3)], [2]) if name == "1.0" else None
        )


def test_structures_that_are_none() -> None:
    with pytest.raises(StructureError, match=r"every mode must be at least 1, got \(0, 8, 3, 3\)"):
        full([(0, 8, 3, 3), (4, 1, 1, 1)], [2])
    with pytest.raises(RankError, match="rank r1 must be at least 1, got 0"):
        weight_svd(SHAPE, 0)
    with pytest.raises(StructureError, match="at least one factor"):
        Structure(factors=(), ranks={})
    with pytest.raises(RankError, match="full of 2 factors needs 1 ranks, got 2"):
        full([(3, 4), (4, 2)], [2, 2])


def test_names_and_moments_that_are_not_the_models() -> None:
    with pytest.raises(ConfigError, match="no layer 'features'"):
        se.replace_layers(network(), {"features": COUPLINGS["chain"]})
