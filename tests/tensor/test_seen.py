"""Least squares against the original's output, for the inputs that a layer really sees."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sekron_edge.structure import Structure, diagonal, full, mode_by_mode, tucker2, weight_svd
from sekron_edge.tensor import SeenMoments, decompose_tensor, refine

SHAPE = (6, 4, 3, 3)
STRUCTURES = [
    weight_svd(SHAPE, 3),
    tucker2(SHAPE, 3, 2),
    full([(2, 2, 3, 1), (3, 2, 1, 3)], [3]),
    diagonal(mode_by_mode(SHAPE), 8),
]
INPUTS = 36


def drawn(seed: int, rows: int, off: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight, inputs of the original, and the inputs that are seen behind other layers' errors."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = random(rows, INPUTS) @ random(INPUTS, INPUTS)
    mixed = x @ (torch.eye(INPUTS, dtype=torch.float64) + off * random(INPUTS, INPUTS) / INPUTS**0.5)
    return random(*SHAPE), x, mixed + off * random(rows, INPUTS)


def moments(x: Tensor, seen: Tensor) -> SeenMoments:
    original, own, cross = (one.mT @ other / len(x) for one, other in ((x, x), (seen, seen), (x, seen)))
    return SeenMoments(original[None], own[None], cross[None])


@given(st.integers(0, 1000), st.sampled_from([1e-3, 0.1, 10.0, float("inf")]))
@settings(max_examples=20, deadline=None)
def test_where_nothing_came_before_the_target_is_the_weight_itself(seed: int, ridge: float) -> None:
    weight, x, _ = drawn(seed, 200, 0.0)
    target, metric = moments(x, x).target(weight[None], ridge)
    assert torch.allclose(target[0], weight, atol=1e-6)
    original = x.mT @ x / len(x)
    beside = metric[0] - original
    assert torch.allclose(beside, beside.diagonal().mean() * torch.eye(INPUTS, dtype=torch.float64), atol=1e-9)


@given(st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_error_is_that_of_the_outputs(seed: int, off: float) -> None:
    weight, x, seen = drawn(seed, 150, off)
    near = weight + torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    wanted = x @ weight.flatten(1).mT
    expected = (wanted - seen @ near.flatten(1).mT).square().sum() / wanted.square().sum()
    assert moments(x, seen).error(weight[None], near[None]) == pytest.approx(float(expected), rel=1e-6)


@given(st.integers(0, 1000), st.floats(0.05, 1.0))
@settings(max_examples=20, deadline=None)
def test_no_weight_has_less_error_than_the_target(seed: int, off: float) -> None:
    weight, x, seen = drawn(seed, 300, off)
    paired = moments(x, seen)
    target, _ = paired.target(weight[None], 0.0)
    least = paired.error(weight[None], target)
    generator = torch.Generator().manual_seed(seed)
    for scale in (1e-3, 0.1):
        other = target + scale * torch.randn(target.shape, generator=generator, dtype=torch.float64)
        assert paired.error(weight[None], other) >= least - 1e-9
    assert least <= paired.error(weight[None], weight[None]) + 1e-9


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda one: one.coupling)
@given(seed=st.integers(0, 1000), off=st.floats(0.05, 0.5))
@settings(max_examples=10, deadline=None)
def test_a_sweep_never_raises_the_asymmetric_error(structure: Structure, seed: int, off: float) -> None:
    weight, x, seen = drawn(seed, 200, off)
    paired = moments(x, seen)
    target, metric = paired.target(weight[None], 1e-6)
    factors = decompose_tensor(weight, structure)
    before = paired.error(weight[None], factors.reconstruct()[None])
    for _ in range(3):
        factors = refine(factors, target[0], sigma=metric[0], sweeps=1)
        after = paired.error(weight[None], factors.reconstruct()[None])
        assert after <= before * (1 + 1e-6) + 1e-4  # the ridge has its own share of what a sweep lowers
        before = after


@pytest.mark.parametrize("rows", [1, 5])
def test_few_samples_and_dead_inputs_have_a_target(rows: int) -> None:
    weight, x, seen = drawn(3, rows, 0.3)
    x[:, 5:9], seen[:, 5:20] = 0.0, 0.0
    target, _ = moments(x, seen).target(weight[None], 1e-3)
    assert torch.isfinite(target).all()
    dead = moments(torch.zeros_like(x), torch.zeros_like(seen))
    assert torch.equal(dead.target(weight[None], 1e-3)[0][0], weight)
    assert dead.error(weight[None], weight[None]) == 0.0
