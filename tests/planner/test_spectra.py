"""Spectra of all splits of a weight, from few products of it with itself."""

from unittest.mock import Mock

import pytest
import torch

from sekron_edge.planner import _spectra, kronecker_splits
from sekron_edge.tensor import gram_matrix, spectrum


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (12, 5), (4, 9, 2, 1, 3), (7, 1, 5)])
@pytest.mark.parametrize("groups", [1, 3])
def test_the_energies_of_every_split_are_its_squared_singular_values(shape: tuple[int, ...], groups: int) -> None:
    weights = torch.randn(groups, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    splits = list(kronecker_splits(shape))
    found = _spectra.split_energies(weights, splits)
    assert set(found) == set(splits)
    for split, energies in found.items():
        expected = torch.stack([spectrum(weight, split).singular_values.square() for weight in weights])
        assert torch.allclose(energies, expected, atol=1e-10 * float(expected.max()))


def test_some_splits_alone_have_the_energies_that_they_have_among_all() -> None:
    weights = torch.randn(1, 16, 12, 3, 3, dtype=torch.float64)
    splits = list(kronecker_splits((16, 12, 3, 3)))
    every = _spectra.split_energies(weights, splits)
    for split, energies in _spectra.split_energies(weights, splits[::7]).items():
        assert torch.allclose(energies, every[split], atol=1e-10 * float(energies.max()))


def test_most_splits_take_no_product_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with_itself = Mock(side_effect=gram_matrix)
    monkeypatch.setattr(_spectra, "gram_matrix", with_itself)
    splits = list(kronecker_splits((64, 64, 3, 3)))
    _spectra.split_energies(torch.randn(1, 64, 64, 3, 3), splits)
    assert with_itself.call_count < len(splits) / 3
