"""Leaving channels out costs what least squares says, and least of all where they are alike."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sekron_edge.tensor import Reader, removal, solved_again


def drawn(seed: int, channels: int, block: int) -> Reader:
    own = torch.Generator().manual_seed(seed)
    samples = torch.randn(40 * channels * block, channels * block, generator=own)
    mixing = torch.randn(channels * block, channels * block, generator=own)
    x = samples @ mixing
    return Reader(torch.randn(5, channels * block, generator=own), x.T @ x / len(x))


def error(reader: Reader, weight: Tensor, kept: tuple[int, ...], channels: int) -> float:
    """Return the relative error of the output with a weight for some channels alone."""
    block = reader.weight.shape[1] // channels
    whole = torch.zeros_like(reader.weight)
    for place, channel in enumerate(kept):
        whole[:, channel * block : (channel + 1) * block] = weight[:, place * block : (place + 1) * block]
    gone, moment = (reader.weight - whole).double(), reader.moment.double()
    energy = ((reader.weight.double() @ moment) * reader.weight.double()).sum()
    return float(((gone @ moment) * gone).sum() / energy)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from([1, 3]), st.integers(1, 2))
def test_errors_never_fall_and_solving_again_lowers_them(seed: int, channels: int, block: int, count: int) -> None:
    readers = [drawn(seed + index, channels, block) for index in range(count)]
    found = removal(readers, channels)
    assert sorted({*found.order, *found.kept(1)}) == list(range(channels))
    assert list(found.errors) == sorted(found.errors)
    for width in range(1, channels):
        kept = found.kept(width)
        assert len(kept) == width
        columns = [channel * block + value for channel in kept for value in range(block)]
        after = [error(one, solved_again(one, kept, channels), kept, channels) for one in readers]
        cut = [error(one, one.weight[:, columns], kept, channels) for one in readers]
        assert all(solved <= as_it_was + 1e-6 for solved, as_it_was in zip(after, cut, strict=True))
        # The ridge keeps maps near those they come from: predicted errors count that, too.
        assert sum(after) / count <= found.errors[channels - width - 1] * 1.01 + 1e-6


def test_a_channel_that_repeats_another_goes_first_and_costs_nothing() -> None:
    x = torch.randn(2000, 4)
    x[:, 2] = 3 * x[:, 0]
    reader = Reader(torch.ones(3, 4), x.T @ x / len(x))
    found = removal([reader], 4)
    assert found.order[0] in (0, 2)
    assert found.errors[0] < 1e-2 < found.errors[1]


def test_dead_channels_and_constant_inputs_go_first() -> None:
    x = torch.ones(500, 5)
    x[:, 3] = 0
    found = removal([Reader(torch.ones(2, 5), x.T @ x / len(x))], 5)
    assert found.order[0] == 3
    assert found.errors[0] == pytest.approx(0, abs=1e-2)
    dead = Reader(torch.ones(2, 5), torch.zeros(5, 5))
    assert torch.equal(solved_again(dead, (0, 1), 5), torch.ones(2, 2))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        removal([Reader(torch.ones(2, 4), torch.eye(4))], 3)
