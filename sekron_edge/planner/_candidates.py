"""The candidates of a layer: every structure worth pricing, and "leave it dense". No torch here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from math import prod

import numpy as np
from pydantic import BaseModel, ConfigDict

from sekron_edge.budget import LayerCost, planned_resources
from sekron_edge.errors import ConfigError
from sekron_edge.planner._families import OWN_FAMILIES, structure_families
from sekron_edge.planner._names import structure_name
from sekron_edge.structure import Shape, Structure

_NEXT_TO_NOTHING = 0.05


class Candidate(BaseModel):
    """One choice for a layer, priced; ``structure`` is ``None`` for dense."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    structure: Structure | None
    cost: LayerCost
    relative_error: float = 0.0
    predicted_loss: float = 0.0


class LayerScores(BaseModel):
    """One layer and all its candidates; the first is dense."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    weight_shape: Shape
    considered: int
    candidates: tuple[Candidate, ...]
    refused: str = ""


def enumerate_structures(shape: Shape, families: Collection[str] | None = None) -> Iterator[tuple[str, Structure]]:
    """Yield ``(family, structure)`` for the weight ``(F, C, *kernel)`` of one group, each with fewer parameters.

    The family is what the structure is called; others' families name their own. Structures with pointwise factors that
    are better merged are left out.

    Args:
        shape: Of the weight.
        families: Names of families; those that are offered by default if None.

    Raises:
        ConfigError: If no family has one of the names; lists those that exist.
    """
    known = structure_families()
    named = [name for name, family in known.items() if family.by_default] if families is None else families
    unknown = sorted(set(named) - set(known))
    if unknown:
        raise ConfigError(f"no structure family {unknown[0]!r}; known families: {', '.join(known)}")
    seen: set[Structure] = set()
    for name, family in known.items():
        for structure in family.structures(shape) if name in named else ():
            if structure.num_params < prod(shape) and structure.mergeable is None and structure not in seen:
                # Patterns with ranks of one may be another family's: they are offered where that is named too.
                called = structure_name(structure) if name in OWN_FAMILIES else name
                if called in named:
                    seen.add(structure)
                    yield called, structure


def undominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop each candidate that has no less error than another one, and saves next to nothing compared to it.

    Next to nothing is less than 5 % of each resource that plans bound. Errors before refinement are less exact than
    that.
    """
    compared = [resource for resource in planned_resources() if resource.compared]

    def figures(candidate: Candidate) -> tuple[float, ...]:
        return candidate.relative_error, *(float(resource.amount(candidate.cost)) for resource in compared)

    # In this order no later candidate has less error than those kept before.
    ordered = sorted(candidates, key=figures)
    values = np.array([figures(candidate) for candidate in ordered])
    enough = np.array([1.0, *[1 + _NEXT_TO_NOTHING] * (values.shape[1] - 1)])
    kept: list[int] = []
    best = np.empty_like(values)
    for index, own in enumerate(values):
        if not (best[: len(kept)] <= own * enough).all(axis=1).any():
            best[len(kept)] = own
            kept.append(index)
    return [ordered[index] for index in kept]
