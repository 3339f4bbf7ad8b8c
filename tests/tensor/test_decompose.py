"""Structures and their decomposition: the properties that the mathematics promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sekron_edge.errors import RankError, StructureError, UnsupportedLayerError
from sekron_edge.structure import Factor, Structure, chain, full, ring, spatial_svd, tucker2
from sekron_edge.tensor import FactorizedTensor, decompose_tensor, spectrum
from tests.strategies import splits, weights

EXACT = 1e-10


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_two_factors_meet_eckart_young(data: st.DataObject) -> None:
    shapes = data.draw(splits())
    weight = data.draw(weights(full(shapes, [1]).shape))
    spectral = spectrum(weight, shapes)
    previous = 2.0
    for rank in range(1, len(spectral.singular_values) + 1):
        error = decompose_tensor(weight, full(shapes, [rank])).relative_error(weight)
        assert error == pytest.approx(spectral.relative_error(rank), abs=1e-9)
        assert error <= previous + 1e-9
        previous = error
    assert previous < EXACT


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_chain_of_full_rank_reproduces_the_tensor(data: st.DataObject) -> None:
    shapes = data.draw(splits(factors=3, largest=3))
    sizes = [int(torch.tensor(shape).prod()) for shape in shapes]
    last = min(min(sizes[0], sizes[1] * sizes[2]) * sizes[1], sizes[2])
    structure = chain(shapes, [min(sizes[0], sizes[1] * sizes[2]), last])
    weight = data.draw(weights(structure.shape))
    assert decompose_tensor(weight, structure).relative_error(weight) < EXACT


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_reconstruction_of_two_factors_is_a_sum_of_kronecker_products(data: st.DataObject) -> None:
    structure = full(data.draw(splits(largest=3)), [2])
    left, right = (
        torch.randn(structure.value_shape(k), dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        for k in range(2)
    )
    expected = sum(torch.kron(left[r], right[r]) for r in range(2))
    torch.testing.assert_close(FactorizedTensor(structure, (left, right)).reconstruct(), expected)


def test_error_never_rises_with_a_rank_of_tucker2() -> None:
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shape = tuple(weight.shape)
    table = [
        [decompose_tensor(weight, tucker2(shape, out, inp)).relative_error(weight) for inp in range(1, 7)]
        for out in range(1, 9)
    ]
    errors = torch.tensor(table)
    assert (errors.diff(dim=0) <= 1e-9).all()
    assert (errors.diff(dim=1) <= 1e-9).all()


def test_dtype_is_kept_and_the_weight_is_not_modified() -> None:
    weight = torch.randn(8, 6, 3, 3)
    before = weight.clone()
    factorized = decompose_tensor(weight, spatial_svd((8, 6, 3, 3), 4))
    assert {value.dtype for value in factorized.values} == {torch.float32}
    assert torch.equal(weight, before)


def test_zero_tensor_has_no_error() -> None:
    weight = torch.zeros(4, 4, 3, 3)
    factorized = decompose_tensor(weight, spatial_svd((4, 4, 3, 3), 2))
    assert factorized.relative_error(weight) == 0
    assert torch.isfinite(factorized.reconstruct()).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    weight = torch.ones(4, 4)
    weight[1, 2] = value
    with pytest.raises(UnsupportedLayerError, match="1 of 16 values"):
        decompose_tensor(weight, full([(4, 1), (1, 4)], [2]))


def test_errors_name_the_value_and_the_limit() -> None:
    weight = torch.randn(4, 4)
    with pytest.raises(RankError, match="r1 must be at most 4, got 5"):
        decompose_tensor(weight, full([(4, 1), (1, 4)], [5]))
    with pytest.raises(StructureError, match=r"\(4, 6\).*\(4, 4\)"):
        decompose_tensor(weight, full([(4, 1), (1, 6)], [2]))
    with pytest.raises(RankError, match=r"at most \(8, 6\), got \(9, 2\)"):
        tucker2((8, 6, 3, 3), 9, 2)
    with pytest.raises(StructureError, match="two factors must multiply"):
        spectrum(weight, [(4, 1), (1, 3)])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Structure(factors=(), ranks={}), "at least one factor"),
        (lambda: full([(2, 2), (2, 2)], [0]), "rank r1 must be at least 1, got 0"),
        (lambda: full([(2, 2), (2,)], [1]), "same number of modes"),
        (lambda: full([(2, 0), (2, 2)], [1]), "every mode must be at least 1"),
        (lambda: full([(2, 2), (2, 2)], [1, 2]), "needs 1 ranks, got 2"),
        (lambda: ring([(2,), (2,), (2,)], [1, 2]), "needs 3 ranks"),
        (lambda: Structure(factors=(Factor(shape=(2,), labels=("a",)),), ranks={"a": 2}), "shared by two"),
    ],
)
def test_malformed_structures_are_refused(build: Callable[..., Any], message: str) -> None:
    with pytest.raises((StructureError, RankError), match=message):
        build()


def test_structures_are_hashable_readable_and_survive_json() -> None:
    structure = tucker2((8, 6, 3, 3), 4, 2)
    assert Structure.model_validate_json(structure.model_dump_json()) == structure
    assert len({structure, tucker2((8, 6, 3, 3), 4, 2)}) == 1
    assert str(structure) == "(8x1x1x1)[r1=4] ⊗ (1x1x3x3)[r1=4,r2=2] ⊗ (1x6x1x1)[r2=2]"
    assert structure.num_params == 8 * 4 + 4 * 2 * 9 + 2 * 6
