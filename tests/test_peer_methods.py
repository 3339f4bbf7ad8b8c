"""The rules of peers that `benchmarks.peers` writes itself."""

import torch

from benchmarks._peer_methods import _weakened, vbmf_rank


def test_vbmf_finds_the_rank_under_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((64, 10), (10, 576)))
    noise = torch.randn(64, 576, generator=generator, dtype=torch.float64)
    assert vbmf_rank(left @ right + 0.5 * noise) == 10
    assert vbmf_rank((left @ right + 0.5 * noise).T) == 10
    assert vbmf_rank(noise) == 0


def test_ranks_go_from_all_through_those_of_vbmf_to_one() -> None:
    assert [_weakened(64, 16, strength) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)] == [64, 40, 16, 8, 1]
    assert _weakened(64, 0, 0.5) == 1
