"""Hypothesis strategies that the tests share."""

from math import prod

import torch
from hypothesis import strategies as st


@st.composite
def splits(draw, factors=2, max_modes=4, largest=4):
    """Mode shapes of ``factors`` factors of one tensor."""
    modes = draw(st.integers(2, max_modes))
    sizes = st.lists(st.integers(1, largest), min_size=modes, max_size=modes).map(tuple)
    return [draw(sizes) for _ in range(factors)]


@st.composite
def weights(draw, shape, dtype=torch.float64):
    """A seeded tensor of the given shape, now and then of low rank or with zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(prod(shape), generator=generator, dtype=dtype)
    if draw(st.booleans()):
        values = values * (torch.rand(prod(shape), generator=generator) > 0.5)
    return values.reshape(shape)
