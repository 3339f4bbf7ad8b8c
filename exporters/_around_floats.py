"""What stays in float around layers that are kept in float, in a graph of any format.

Between two such layers, and between one and an input or an output of the model, there is nothing to gain from
integers: what only passes values on stays in float there. What a rounded operator gives is integers for good.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """An operator of a graph.

    Attributes:
        reads: The values that it reads, without constants.
        writes: The values that it gives.
        role: ``kept`` in float; ``rounded``, if it multiplies with weights or adds what is computed; or ``passing``.
    """

    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]
    role: Literal["kept", "rounded", "passing"]


@dataclass(frozen=True)
class Floats:
    """What stays in float.

    Attributes:
        steps: Places of operators in the graph.
        values: Of the graph's inputs and outputs.
    """

    steps: frozenset[int]
    values: frozenset[Hashable]


def staying_in_float(steps: Sequence[Step], inputs: Collection[Hashable], outputs: Collection[Hashable]) -> Floats:
    """Return what stays in float, from the operators in the order in which they run."""
    exact: set[Hashable] = set(inputs)
    for step in steps:
        if step.role == "kept" or (step.role == "passing" and exact.issuperset(step.reads)):
            exact.update(step.writes)
    wanted = {value for step in steps if step.role == "kept" for value in step.reads} | set(outputs)
    found: set[int] = set()
    for place in reversed(range(len(steps))):
        step = steps[place]
        if step.role == "kept":
            found.add(place)
        elif step.role == "passing" and exact.issuperset(step.reads) and wanted.intersection(step.writes):
            found.add(place)
            wanted.update(step.reads)
    return Floats(frozenset(found), frozenset(wanted & exact & {*inputs, *outputs}))
