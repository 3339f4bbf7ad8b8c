"""An order of channels that a split loses less in, found by swaps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sekron_edge.errors import StructureError, UnsupportedLayerError
from sekron_edge.structure import full, tucker2
from sekron_edge.tensor import decompose_tensor, order_channels
from tests.strategies import weights


@given(weights((6, 4, 3, 3)), st.integers(1, 4), st.integers(0, 60))
@settings(deadline=None, max_examples=25)
def test_the_error_is_that_of_the_ordered_weight_and_never_larger(weight: Tensor, rank: int, swaps: int) -> None:
    structure = full([(2, 2, 3, 1), (3, 2, 1, 3)], [rank])
    found = order_channels(weight, structure, swaps=swaps)
    ordered = weight[found.outputs][:, found.inputs]
    assert sorted(found.outputs.tolist()) == list(range(6))
    assert sorted(found.inputs.tolist()) == list(range(4))
    assert found.relative_error <= found.before
    assert found.before == pytest.approx(decompose_tensor(weight, structure).relative_error(weight), abs=1e-6)
    error = decompose_tensor(ordered, structure).relative_error(ordered)
    assert found.relative_error == pytest.approx(error, abs=1e-6)


def test_an_order_that_was_lost_is_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    structure = full([(2, 1, 3, 3), (3, 4, 1, 1)], [1])
    weight = torch.kron(torch.randn(2, 1, 3, 3, generator=generator), torch.randn(3, 4, 1, 1, generator=generator))
    shuffled = weight[torch.randperm(6, generator=generator)]
    found = order_channels(shuffled, structure, swaps=500)
    assert found.before > 0.1
    assert found.relative_error < 1e-6


def test_channels_that_no_factor_splits_stay_where_they_are() -> None:
    weight = torch.randn(6, 4, 3, 3)
    found = order_channels(weight, full([(6, 1, 3, 1), (1, 4, 1, 3)], [3]))
    assert found.outputs.tolist() == list(range(6))
    assert found.relative_error == found.before


def test_what_cannot_be_ordered_is_refused() -> None:
    weight = torch.randn(6, 4, 3, 3)
    with pytest.raises(StructureError, match="two factors"):
        order_channels(weight, tucker2((6, 4, 3, 3), 2, 2))
    with pytest.raises(StructureError, match="the tensor has"):
        order_channels(weight, full([(2, 2), (3, 2)], [2]))
    with pytest.raises(UnsupportedLayerError, match="NaN"):
        order_channels(weight * float("nan"), full([(2, 2, 3, 1), (3, 2, 1, 3)], [2]))
