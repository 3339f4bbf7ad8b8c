"""Inputs and outputs of any structure."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch

from sekron_edge import pytrees
from sekron_edge.errors import ConfigError

Pair = namedtuple("Pair", "left right")
ONE, TWO = torch.ones(2, 1), torch.zeros(3, 1)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (ONE, ((ONE,), {})),
        ((ONE, TWO), ((ONE, TWO), {})),
        ([ONE, TWO], ((ONE, TWO), {})),
        ({"left": ONE}, ((), {"left": ONE})),
        (Pair(ONE, TWO), ((Pair(ONE, TWO),), {})),
    ],
    ids=["tensor", "tuple", "list", "dict", "named tuple"],
)
def test_inputs_say_how_a_model_is_called(inputs: object, expected: object) -> None:
    assert pytrees.arguments(inputs) == expected


def test_tensors_are_named_by_their_place() -> None:
    tree = {"boxes": ONE, "features": [TWO, (ONE, 3)]}
    assert list(pytrees.named_tensors(tree)) == ["boxes", "features.0", "features.1.0"]
    assert list(pytrees.named_tensors(ONE, "input")) == ["input"]


def test_batches_are_joined_leaf_by_leaf() -> None:
    joined = pytrees.concatenated([{"a": ONE, "loss": ONE.sum()}, {"a": TWO, "loss": TWO.sum()}])
    assert joined["a"].shape == (5, 1)
    assert joined["loss"].tolist() == [2, 0]


def test_batches_of_another_structure_are_refused() -> None:
    with pytest.raises(ConfigError, match="one structure"):
        pytrees.concatenated([{"a": ONE}, [ONE]])


def test_batched_inputs_are_cut_along_the_batch_and_what_is_the_same_for_all_is_in_every_piece() -> None:
    inputs: dict[str, Any] = {
        "x": (torch.arange(10), torch.arange(20).reshape(10, 2)),
        "grid": torch.ones(3),
        "scale": torch.tensor(2),
    }
    pieces = list(pytrees.batches(inputs, 4))
    assert [pytrees.batch_size(piece) for piece in pieces] == [4, 4, 2]
    assert all(torch.equal(piece["grid"], inputs["grid"]) and piece["scale"] == 2 for piece in pieces)
    assert torch.equal(torch.cat([piece["x"][1] for piece in pieces]), inputs["x"][1])
    with pytest.raises(ConfigError, match="a tensor with a batch axis"):
        pytrees.batch_size({"scale": torch.tensor(2)})


def test_what_is_shared_is_in_every_piece_whatever_its_length() -> None:
    grid = torch.arange(8).reshape(4, 2)
    inputs = {"grid": pytrees.Shared(grid), "scale": pytrees.Shared(2), "x": torch.arange(4)}
    assert pytrees.batch_size(inputs) == 4
    pieces = list(pytrees.batches(inputs, 1))
    assert len(pieces) == 4
    for index, piece in enumerate(pieces):
        (args, named) = pytrees.arguments(piece)
        assert args == ()
        assert named["grid"] is grid
        assert named["scale"] == 2
        assert named["x"].tolist() == [index]
    assert list(pytrees.named_tensors(inputs)) == ["grid", "x"]
    assert pytrees.arguments(pytrees.Shared(grid)) == ((grid,), {})
    half = pytrees.in_single({**inputs, "grid": pytrees.Shared(grid.half())})
    assert half["grid"].value.dtype == torch.float32
    assert pytrees.Shared(grid).to("meta").value.is_meta
