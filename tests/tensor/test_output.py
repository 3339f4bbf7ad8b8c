"""Factors for the error of a layer's output: the systems that are solved, and going down where they are too large."""

import pytest
import torch
from torch import Tensor

from sekron_edge.structure import diagonal, full, mode_by_mode, spatial_svd, tucker2, weight_svd
from sekron_edge.tensor import decompose_tensor, refine
from sekron_edge.tensor._network import cores_of
from sekron_edge.tensor._output import OutputProblem

SHAPE = (12, 6, 3, 3)
SIZE = 54
STRUCTURES = {
    "weight-svd": weight_svd(SHAPE, 4),
    "spatial-svd": spatial_svd(SHAPE, 5),
    "tucker2": tucker2(SHAPE, 4, 3),
    "split": full([(3, 2, 3, 1), (4, 3, 1, 3)], [4]),
    "sekron-3": full([(3, 2, 1, 3), (2, 1, 3, 1), (2, 3, 1, 1)], [3, 2]),
    "cp": diagonal(mode_by_mode(SHAPE), 5),
}
cases = pytest.mark.parametrize(
    ("name", "k"), [(name, k) for name, found in STRUCTURES.items() for k in range(len(found.factors))]
)


def problem_of(name: str) -> tuple[Tensor, Tensor, OutputProblem, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    x = torch.randn(4 * SIZE, SIZE, generator=generator, dtype=torch.float64)
    x = x * torch.logspace(0, -1, SIZE, dtype=torch.float64)
    sigma = x.T @ x / len(x)
    start = decompose_tensor(weight, STRUCTURES[name], sweeps=1)
    return weight, sigma, OutputProblem(STRUCTURES[name], weight, sigma), cores_of(start)


@cases
def test_a_solved_core_is_the_best_given_the_others(name: str, k: int) -> None:
    _, _, problem, cores = problem_of(name)
    cores[k] = problem._best(cores, k)
    least = problem.error(cores)
    assert problem.reached(cores) == pytest.approx(least, rel=1e-6)
    generator = torch.Generator().manual_seed(4)
    for size in (1e-3, 1e-1):
        step = size * torch.randn(cores[k].shape, generator=generator, dtype=torch.float64)
        moved = [*cores[:k], cores[k] + step, *cores[k + 1 :]]
        assert problem.error(moved) >= least * (1 - 1e-9)


@cases
def test_going_down_often_ends_where_solving_does(name: str, k: int) -> None:
    _, _, problem, cores = problem_of(name)
    best = problem.error([*cores[:k], problem._best(cores, k), *cores[k + 1 :]])
    before = problem.error(cores)
    for _ in range(40):
        cores[k] = problem._descended(cores, k)
        after = problem.error(cores)
        assert after <= before * (1 + 1e-9)
        before = after
    assert after == pytest.approx(best, rel=1e-2)
    assert after >= best * (1 - 1e-9)


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_moment_of_few_samples_and_single_precision_raise_nothing(name: str) -> None:
    weight, _, _, _ = problem_of(name)
    x = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(5))
    for sigma in (x.T @ x / 5, torch.zeros(SIZE, SIZE)):
        start = decompose_tensor(weight.float(), STRUCTURES[name], sweeps=1)
        problem = OutputProblem(STRUCTURES[name], weight.float(), sigma)
        found = refine(start, weight.float(), sigma=sigma, sweeps=3)
        assert all(torch.isfinite(value).all() for value in found.values)
        assert problem.error(cores_of(found)) <= problem.error(cores_of(start)) * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("name", STRUCTURES)
def test_sweeps_in_single_precision_reach_what_those_in_double_reach(name: str) -> None:
    weight, _, _, _ = problem_of(name)
    start = decompose_tensor(weight, STRUCTURES[name], sweeps=0)
    double = refine(start, weight, sweeps=5).relative_error(weight)
    single = refine(start, weight, sweeps=5, arithmetic=torch.float32).relative_error(weight)
    assert single == pytest.approx(double, rel=1e-3)
