"""Hypothesis strategies that the tests share."""

from math import prod

import torch
from hypothesis import strategies as st
from torch import Tensor

from sekron_edge.structure import Shape, Structure, chain, diagonal, full, ring, spatial_svd, star, tucker2, weight_svd


@st.composite
def splits(draw: st.DrawFn, factors: int = 2, max_modes: int = 4, largest: int = 4) -> list[Shape]:
    """Mode shapes of ``factors`` factors of one tensor."""
    modes = draw(st.integers(2, max_modes))
    sizes = st.lists(st.integers(1, largest), min_size=modes, max_size=modes).map(tuple)
    return [draw(sizes) for _ in range(factors)]


@st.composite
def weights(
    draw: st.DrawFn,
    shape: Shape,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """A seeded tensor of the given shape, now and then of low rank or with zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(prod(shape), generator=generator, dtype=dtype)
    if draw(st.booleans()):
        values = values * (torch.rand(prod(shape), generator=generator) > 0.5)
    return values.reshape(shape)


def factorized_structures() -> dict[str, Structure]:
    """Structures of a weight of (12, 8, 3, 3), by name: every coupling, with and without splits of C and F."""
    return {
        "weight-svd": weight_svd((12, 8, 3, 3), 3),
        "spatial-svd": spatial_svd((12, 8, 3, 3), 3),
        "tucker2": tucker2((12, 8, 3, 3), 5, 4),
        "gkpd": full([(3, 4, 3, 1), (4, 2, 1, 3)], [5]),
        "gkpd-inner-out": full([(1, 4, 1, 1), (12, 2, 3, 3)], [3]),
        "sekron-3": full([(3, 2, 1, 1), (2, 2, 3, 1), (2, 2, 1, 3)], [2, 3]),
        "tensor-train": chain([(2, 2, 1, 3), (3, 2, 3, 1), (2, 2, 1, 1)], [2, 3]),
        "tensor-ring": ring([(2, 2, 1, 1), (3, 2, 3, 3), (2, 2, 1, 1)], [2, 3, 2]),
        "cp": diagonal([(12, 1, 1, 1), (1, 1, 3, 1), (1, 1, 1, 3), (1, 8, 1, 1)], 6),
        "tucker": star([(12, 1, 1, 1), (1, 8, 1, 1), (1, 1, 3, 1), (1, 1, 1, 3)], [5, 4, 2, 3]),
        "star-of-splits": star([(3, 2, 3, 1), (4, 4, 1, 3)], [3, 4]),
    }
