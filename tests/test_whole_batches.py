"""Batches in pieces of an artifact's own, whatever input tells how many samples there are."""

from __future__ import annotations

import numpy as np
import pytest

from sekron_edge.artifacts import batch_and_total, whole_batches

SHAPES = [(1, 8), (4, 2), (2, 3)]  # two inputs that are the same for all samples, and one with batches of 2


@pytest.mark.parametrize(
    ("samples", "expected", "lengths"), [(2, (1, 1), [2]), (4, (2, 4), [2, 2]), (5, (2, 5), [2, 2]), (1, (2, 1), [])]
)
def test_what_is_the_same_for_all_samples_is_in_every_piece(
    samples: int, expected: tuple[int, int], lengths: list[int]
) -> None:
    values = [np.ones((1, 8)), np.ones((4, 2)), np.arange(samples * 3).reshape(samples, 3)]
    assert batch_and_total(values, SHAPES) == expected
    found = list(whole_batches(values, SHAPES))
    assert [len(piece[2]) for piece in found] == lengths
    assert all(piece[0] is values[0] and piece[1] is values[1] for piece in found)
    if lengths:
        assert np.array_equal(np.concatenate([piece[2] for piece in found]), values[2][: sum(lengths)])
