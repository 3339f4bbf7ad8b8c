"""Products of a matrix with its own transpose."""

import pytest
import torch

from sekron_edge.tensor import gram_matrix


@pytest.mark.parametrize("shape", [(3, 5), (2, 511, 7), (512, 40), (513, 4), (2, 1030, 3), (0, 4)])
def test_it_is_the_product_and_symmetric(shape):
    rows = torch.randn(shape, dtype=torch.float64)
    found = gram_matrix(rows)
    assert torch.allclose(found, rows @ rows.mT, atol=1e-12)
    if shape[-2] >= 512:
        assert torch.equal(found, found.mT)
