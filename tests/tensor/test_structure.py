"""A structure is a value: the order of its ranks and what labels are called change nothing, and nothing changes it."""

import copy
import json
import pickle

import pytest
import tensorly
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sekron_edge.errors import StructureError
from sekron_edge.structure import Factor, Structure, chain, full, mode_by_mode, ring, star
from sekron_edge.tensor import decompose_tensor, to_tensorly
from tests.strategies import factorized_structures

tensorly.set_backend("pytorch")
MODES = mode_by_mode((6, 4, 3, 3))
STRUCTURES = {
    **factorized_structures(),
    "ring-of-two": ring([(3, 2, 3, 1), (2, 2, 1, 3)], [2, 3]),
    "many-ranks": star([(2,)] * 11, [1, 2] * 5 + [1]),
    "other": Structure(
        factors=(
            Factor(shape=(3, 2, 1, 3), labels=("a", "b")),
            Factor(shape=(2, 1, 3, 1), labels=("a", "c")),
            Factor(shape=(1, 2, 1, 1), labels=("b", "c", "a")),
        ),
        ranks={"a": 2, "b": 3, "c": 1},
    ),
}
structures = st.sampled_from(list(STRUCTURES.values()))


@st.composite
def reordered(draw: st.DrawFn) -> tuple[Structure, Structure]:
    """A structure, and the same one with its ranks given in another order."""
    structure = draw(structures)
    ranks = dict(draw(st.permutations(structure.ranks)))
    return structure, Structure(factors=structure.factors, ranks=ranks)


@given(reordered())
def test_the_order_in_which_ranks_are_given_does_not_matter(pair: tuple[Structure, Structure]) -> None:
    structure, same = pair
    assert same == structure
    assert hash(same) == hash(structure)
    assert same.coupling == structure.coupling
    assert same.model_dump_json() == structure.model_dump_json()


@pytest.mark.parametrize("name", factorized_structures())
def test_equal_structures_have_equal_decompositions(name: str) -> None:
    structure = STRUCTURES[name]
    same = Structure(factors=structure.factors, ranks=dict(reversed(structure.ranks)))
    weight = torch.randn(structure.shape, generator=torch.Generator().manual_seed(0))
    one, other = (decompose_tensor(weight, each, sweeps=2) for each in (structure, same))
    assert all(torch.equal(left, right) for left, right in zip(one.values, other.values, strict=True))


@given(st.data())
def test_what_labels_are_called_and_where_factors_write_them_leaves_the_coupling(
    data: st.DataObject,
) -> None:
    structure = data.draw(structures)
    names = dict(zip(structure.labels, data.draw(st.permutations(structure.labels)), strict=True))
    factors = tuple(
        Factor(shape=factor.shape, labels=tuple(data.draw(st.permutations([names[label] for label in factor.labels]))))
        for factor in structure.factors
    )
    renamed = Structure(factors=factors, ranks={names[label]: rank for label, rank in structure.ranks})
    assert renamed.coupling == structure.coupling
    # Two factors that share two labels: which one is the first is only a matter of where they are written.
    if structure.coupling != "other" and len(structure.factors) > 2:
        assert renamed.sizes == structure.sizes


def turned(structure: Structure) -> Structure:
    """The same coupling, each factor's labels written the other way round."""
    factors = tuple(Factor(shape=factor.shape, labels=factor.labels[::-1]) for factor in structure.factors)
    return Structure(factors=factors, ranks=structure.ranks)


@pytest.mark.parametrize("structure", [full(MODES, [4, 3, 2]), chain(MODES, [3, 4, 2]), ring(MODES, [2, 3, 2, 2])])
def test_a_factor_may_write_its_labels_in_any_order(structure: Structure) -> None:
    weight = torch.randn(structure.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = decompose_tensor(weight, structure, sweeps=0).reconstruct()
    decomposed = decompose_tensor(weight, turned(structure), sweeps=0)
    torch.testing.assert_close(decomposed.reconstruct(), expected)
    if structure.coupling != "full":
        torch.testing.assert_close(to_tensorly(decomposed).to_tensor(), expected)


@given(structures)
def test_labels_stand_in_the_order_of_the_constructors_and_sizes_beside_them(structure: Structure) -> None:
    assert structure.ranks == tuple(zip(structure.labels, structure.sizes, strict=True))
    assert all(structure.rank(label) == size for label, size in structure.ranks)
    if structure.coupling != "other":
        assert structure.labels == tuple(f"r{number + 1}" for number in range(len(structure.ranks)))


@given(structures.filter(lambda structure: structure.coupling != "other"))
def test_a_merged_structure_keeps_the_order_of_its_ranks(structure: Structure) -> None:
    for k in range(len(structure.factors) - 1):
        merged = structure.merged(k)
        assert merged.ranks == tuple(pair for pair in structure.ranks if pair in merged.ranks)


def test_nothing_in_a_structure_can_be_changed() -> None:
    structure = chain(MODES, [2, 3, 2])
    before = hash(structure)
    with pytest.raises(TypeError, match="does not support item assignment"):
        structure.ranks["r1"] = 5  # type: ignore[index]
    with pytest.raises(ValidationError, match="frozen"):
        structure.ranks = (("r1", 5),)  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        structure.factors[0].labels = ()  # type: ignore[misc]
    assert hash(structure) == before


@given(reordered())
def test_json_holds_ranks_as_an_object_and_may_be_read_in_any_order(pair: tuple[Structure, Structure]) -> None:
    structure, _ = pair
    written = json.loads(structure.model_dump_json())
    assert list(written["ranks"].items()) == list(structure.ranks)
    old = written | {"ranks": dict(reversed(written["ranks"].items()))}
    assert Structure.model_validate_json(json.dumps(old)) == structure
    assert Structure.model_validate(structure.model_dump()) == structure


@given(structures)
def test_copies_are_equal(structure: Structure) -> None:
    for same in (copy.deepcopy(structure), pickle.loads(pickle.dumps(structure)), structure.with_ranks()):
        assert same == structure
        assert hash(same) == hash(structure)
        assert {structure: 1}[same] == 1


def test_labels_that_a_structure_has_not_and_labels_given_twice_are_refused() -> None:
    structure = chain(MODES, [2, 3, 2])
    with pytest.raises(StructureError, match="one of r1, r2, r3, got 'r4'"):
        structure.rank("r4")
    with pytest.raises(StructureError, match="must be the same"):
        structure.with_ranks(r4=2)
    with pytest.raises(StructureError, match="must be the same"):
        Structure(factors=structure.factors, ranks=(*structure.ranks, ("r1", 2)))
