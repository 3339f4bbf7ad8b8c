"""Products of a matrix with its own transpose."""

import pytest
import torch

from sekron_edge.tensor import gram_matrix


@pytest.mark.parametrize("shape", [(3, 5), (2, 511, 7), (512, 40), (513, 4), (2, 1030, 3), (0, 4)])
def test_it_is_the_product(shape: tuple[int, ...]) -> None:
    """Within a block on the diagonal it is symmetric as far as the BLAS makes it so: not on every processor."""
    rows = torch.randn(shape, dtype=torch.float64)
    assert torch.allclose(gram_matrix(rows), rows @ rows.mT, atol=1e-12)
