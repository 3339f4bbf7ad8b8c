"""Families of structures: those of this package, and others'."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from sekron_edge.budget import Budget
from sekron_edge.errors import ConfigError
from sekron_edge.nn import replace_layers
from sekron_edge.planner import (
    Family,
    added_families,
    enumerate_structures,
    register_family,
    score,
    structure_families,
)
from sekron_edge.planner import _families as families
from sekron_edge.plugins import Plugins
from sekron_edge.structure import Shape, Structure, tucker2
from tests.cost_models import MacsAreTime

OWN = ["weight-svd", "spatial-svd", "tucker2", "sekron-2", "sekron-3", "cp", "tensor-train", "tensor-ring"]


@pytest.fixture
def nothing_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(families, "_ADDED", Plugins("sekron_edge.no_families", "structure family"))


def quarters(shape: Shape) -> Iterator[Structure]:
    if len(shape) == 4:
        yield tucker2(shape, shape[0] // 4, shape[1] // 4)
        yield tucker2(shape, shape[0], shape[1])  # more than there are: left out


def test_the_order_of_families_is_that_of_plans() -> None:
    assert list(structure_families())[: len(OWN)] == OWN


@pytest.mark.usefixtures("nothing_added")
def test_a_family_that_is_registered_is_offered_after_the_others_and_planned() -> None:
    before = list(enumerate_structures((32, 16, 3, 3)))
    register_family(Family("quarters", quarters))
    assert list(structure_families()) == [*OWN, "quarters"]
    assert added_families() == ["quarters"]
    # Tucker-2 offers the same structure, and comes first.
    assert list(enumerate_structures((32, 16, 3, 3))) == before
    assert len(list(enumerate_structures((32, 16, 3, 3), ["quarters"]))) == 1

    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 64, 4))
    x = torch.randn(4, 16, 8, 8)
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,), families=["quarters"])
    plan = scores.plan(Budget(macs="0.5x"), profile="host", runtime="litert")
    assert {layer.name: layer.family for layer in plan.layers} == {"0": "quarters", "3": "dense"}
    assert replace_layers(model, plan.structures())(x).shape == (4, 4)


@pytest.mark.usefixtures("nothing_added")
def test_a_family_may_be_offered_by_name_only() -> None:
    register_family(Family("quarters", lambda shape: iter([tucker2(shape, 3, 3)]), by_default=False))
    assert added_families() == []
    assert "quarters" not in {name for name, _ in enumerate_structures((32, 16, 3, 3))}
    assert [name for name, _ in enumerate_structures((32, 16, 3, 3), ["quarters"])] == ["quarters"]


@pytest.mark.usefixtures("nothing_added")
@pytest.mark.parametrize("taken", ["cp", "dense", "quarters"])
def test_a_name_that_is_taken_is_refused(taken: str) -> None:
    register_family(Family("quarters", quarters))
    with pytest.raises(ConfigError, match=f"{taken!r} exists"):
        register_family(Family(taken, quarters))


@pytest.mark.usefixtures("nothing_added")
def test_the_family_of_the_docs_is_offered(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "structures.md").read_text(encoding="utf-8")
    code = page.partition("## A family of your own")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    family = runpy.run_path(str(tmp_path / "example.py"))["FAMILY"]
    register_family(family)
    offered = [structure for _, structure in enumerate_structures((32, 16, 3, 3), [family.name])]
    assert offered
    assert all(structure.shape == (32, 16, 3, 3) for structure in offered)
