"""What structures are called: by what they are, whoever offers them."""

from math import prod
from typing import Any

import pytest
from torch import nn

from sekron_edge.nn import layer_primitives
from sekron_edge.planner import enumerate_structures, kronecker_splits, ranks_up_to, structure_families, structure_name
from sekron_edge.structure import (
    Factor,
    Structure,
    chain,
    diagonal,
    full,
    mode_by_mode,
    ring,
    spatial_svd,
    star,
    tucker2,
    weight_svd,
)
from tests.planner.test_families import OWN

SHAPE = (16, 8, 3, 3)
OUT, INP, KERNEL = (16, 1, 1, 1), (1, 8, 1, 1), (1, 1, 3, 3)
SHAPES = [SHAPE, (32, 24), (1, 12, 3, 3), (12, 1, 3, 3), (8, 6, 5), (4, 6, 2, 1, 3), (6, 4, 3, 1), (1, 1, 3, 3)]


NAMED = [
    ("weight-svd", weight_svd(SHAPE, 4)),
    ("weight-svd", weight_svd((16, 8), 4)),
    ("weight-svd", full([INP, (16, 1, 3, 3)], [4])),
    ("weight-svd", full([(6, 1, 3, 1), (1, 4, 1, 1)], [2])),
    ("weight-svd", ring([OUT, (1, 8, 3, 3)], [2, 2])),
    ("spatial-svd", spatial_svd(SHAPE, 4)),
    ("spatial-svd", full([(16, 1, 3, 1), (1, 8, 1, 3)], [4])),
    ("spatial-svd", full([(4, 1, 2, 1, 1), (1, 6, 1, 3, 3)], [4])),
    ("tucker2", tucker2(SHAPE, 5, 4)),
    ("tucker2", full([OUT, KERNEL, INP], [1, 4])),
    ("tensor-train", chain([OUT, (1, 1, 3, 1), (1, 1, 1, 3), INP], [5, 4, 3])),
    ("tensor-train", chain([OUT, INP, KERNEL], [5, 4])),
    ("tensor-ring", ring(mode_by_mode(SHAPE), [2, 2, 2, 2])),
    ("tucker", star(mode_by_mode(SHAPE), [5, 4, 2, 2])),
    ("cp", diagonal(mode_by_mode(SHAPE), 6)),
    ("cp", diagonal([OUT, INP, KERNEL], 1)),
    ("cp", full([OUT, INP, KERNEL], [6, 1])),
    ("sekron-2", full([(4, 2, 3, 1), (4, 4, 1, 3)], [6])),
    ("sekron-2", full([(4, 1, 1, 1), (4, 8, 3, 3)], [3])),  # outputs are split
    ("sekron-2", full([(16, 8, 3, 1), (1, 1, 1, 3)], [2])),  # nothing is split, and it has no other name
    ("sekron-3", diagonal([(4, 1, 3, 1), (4, 2, 1, 1), (1, 4, 1, 3)], 6)),
    ("sekron-3", full([OUT, INP, KERNEL], [6, 2])),
    ("dense", Structure(factors=(Factor(shape=SHAPE),), ranks={})),
]


@pytest.mark.parametrize(("name", "structure"), NAMED)
def test_a_structure_is_called_what_it_is(name: str, structure: Structure) -> None:
    assert structure_name(structure) == name


@pytest.mark.parametrize(("name", "structure"), [named for named in NAMED if named[0] != "tucker"])
def test_the_order_of_factors_makes_no_other_name(name: str, structure: Structure) -> None:
    assert structure_name(Structure(factors=structure.factors[::-1], ranks=structure.ranks)) == name


@pytest.mark.parametrize("shape", SHAPES)
def test_families_offer_what_is_called_as_they_are(shape: tuple[int, ...]) -> None:
    for family in OWN:
        for name, structure in enumerate_structures(shape, [family]):
            assert name == family == structure_name(structure)


@pytest.mark.parametrize("shape", [SHAPE, (48, 64, 3, 3), (256, 256, 3, 3), (64, 96), (32, 16, 5)])
def test_splits_multiply_less_than_dense_layers(shape: tuple[int, ...]) -> None:
    outputs, inputs, *kernel = shape
    convolution: Any = nn.Conv2d if len(kernel) == 2 else nn.Conv1d
    layer = convolution(inputs, outputs, kernel, padding="same") if kernel else nn.Linear(inputs, outputs)
    places = [14 for _ in kernel]
    for _, structure in enumerate_structures(shape, ["sekron-2"]):
        primitives = layer_primitives(structure, layer, (1, inputs, *places))
        assert sum(one.macs for one in primitives) < prod(shape) * prod(places)


def test_splits_of_wide_layers_are_offered_with_few_components() -> None:
    """As 16x16, 14 components of a 3x3 layer of 256 channels multiply nearly as much as dense; its full rank is 256."""
    shapes = {(16, 16, 3, 3), (16, 16, 1, 1)}
    ranks = {
        one.sizes[0]
        for _, one in enumerate_structures((256, 256, 3, 3), ["sekron-2"])
        if {factor.shape for factor in one.factors} == shapes
    }
    assert ranks == {1, 2, 4, 5, 7, 10}


@pytest.mark.parametrize("shape", SHAPES)
def test_names_lose_no_candidate(shape: tuple[int, ...]) -> None:
    """By default: all Kronecker products of two factors, Tucker-2 and CP. All families together: what each makes."""

    def worthwhile(structures: set[Structure]) -> set[Structure]:
        return {one for one in structures if one.num_params < prod(shape) and one.mergeable is None}

    made = {name: set(family.structures(shape)) for name, family in structure_families().items() if name in OWN}
    two = made["weight-svd"] | made["spatial-svd"] | made["sekron-2"]
    for first, second in kronecker_splits(shape):
        of_both = {one for one in two if {factor.shape for factor in one.factors} == {first, second}}
        if structure_name(full([first, second], [1])) != "sekron-2":
            assert {one.sizes[0] for one in of_both} == set(ranks_up_to(min(prod(first), prod(second))))
    offered = [structure for _, structure in enumerate_structures(shape)]
    assert len(set(offered)) == len(offered)
    assert set(offered) == worthwhile(two | made["tucker2"] | made["cp"])
    assert {structure for _, structure in enumerate_structures(shape, OWN)} == worthwhile(set().union(*made.values()))


def test_of_two_orders_the_one_that_begins_with_the_outputs_comes_first() -> None:
    for family, written in (("weight-svd", weight_svd), ("spatial-svd", spatial_svd)):
        _, first = next(enumerate_structures(SHAPE, [family]))
        assert first == written(SHAPE, first.sizes[0])
