"""Few of many components, nearly the best: orthogonal, never better than the best, and little worse."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sekron_edge.errors import RankError
from sekron_edge.structure import full
from sekron_edge.tensor import decompose_tensor, leading_components, spectrum

SHAPE = (64, 48, 3, 3)
SHAPES = [(8, 8, 3, 1), (8, 6, 1, 3)]  # 192 and 144 values: 144 components


@given(rank=st.integers(1, 144), decay=st.floats(0, 2), seed=st.integers(0, 99))
def test_they_hold_nearly_as_much_as_the_leading_ones(rank: int, decay: float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(144, size, generator=draw, dtype=torch.float64) for size in (192, 144))
    core = (left.mT * torch.arange(1, 145, dtype=torch.float64) ** -decay) @ right
    weight = core.reshape(8, 8, 3, 1, 8, 6, 1, 3).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(SHAPE)
    found, best = leading_components(weight, full(SHAPES, [rank])), spectrum(weight, SHAPES).relative_error(rank)
    error = found.relative_error(weight)
    assert best - 1e-9 <= error <= 1.02 * best + 1e-6
    if rank > 144 // 6:
        assert error == pytest.approx(best, abs=1e-6)


def test_they_are_the_same_again_and_orthogonal() -> None:
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).double()
    structure = full(SHAPES, [5])
    first, second = (leading_components(weight, structure) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first.values, second.values, strict=True))
    for value in first.values:
        gram = value.reshape(5, -1) @ value.reshape(5, -1).mT
        assert torch.allclose(gram, gram.diagonal().diag(), atol=1e-9 * float(gram.max()))
    # So the first of them are a decomposition of fewer.
    truncated = first.truncated("r1", 2).relative_error(weight)
    assert truncated == pytest.approx(decompose_tensor(weight, full(SHAPES, [2])).relative_error(weight), rel=0.02)


def test_too_many_are_refused() -> None:
    with pytest.raises(RankError, match="at most 144"):
        leading_components(torch.ones(SHAPE), full(SHAPES, [145]))
