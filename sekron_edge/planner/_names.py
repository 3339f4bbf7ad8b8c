"""What a structure is called in the field's terms, whoever made it. No torch here."""

from __future__ import annotations

from math import prod

from sekron_edge.structure import Coupling, Shape, Structure

DENSE = "dense"  # the name in plans of a layer that stays as it is
_COUPLED: dict[Coupling, str] = {
    "diagonal": "cp",
    "chain": "tensor-train",
    "ring": "tensor-ring",
    "star": "tucker",
}


def structure_name(structure: Structure) -> str:
    """Return what a structure of a weight ``(F, C, *kernel)`` is.

    The order of factors makes no other name. A mode that is split among factors makes it SeKron, and so does having no
    other name. A label of one component couples nothing, so SeKron may turn out as CP or a train.

    Returns:
        ``weight-svd``, ``spatial-svd``, ``tucker2``, ``cp``, ``tensor-train``, ``tensor-ring`` or ``tucker``; ``dense``
        if there is one factor; ``sekron-S`` of S factors otherwise.
    """
    shapes = [factor.shape for factor in structure.factors]
    if len(shapes) == 1:
        return DENSE
    if any(sum(size > 1 for size in sizes) > 1 for sizes in zip(*shapes, strict=True)):
        return f"sekron-{len(shapes)}"
    if len(shapes) == 2:
        return _name_of_two(*shapes)
    coupled = _COUPLED.get(structure.coupling) or _name_without_ones(structure)
    if coupled == "tensor-train" and _is_tucker2(shapes):
        return "tucker2"
    return coupled or f"sekron-{len(shapes)}"


def _name_of_two(first: Shape, second: Shape) -> str:
    """Return what two factors are that hold whole modes: SVDs, if outputs and inputs are apart."""
    if not any(one[1] == other[0] == 1 for one, other in ((first, second), (second, first))):
        return "sekron-2"
    return "spatial-svd" if min(prod(first[2:]), prod(second[2:])) > 1 else "weight-svd"


def _name_without_ones(structure: Structure) -> str | None:
    """Return what the labels of more than one component make; None if that has no name."""
    carriers = [
        [k for k, factor in enumerate(structure.factors) if label in factor.labels]
        for label, size in structure.ranks
        if size > 1
    ]
    if not carriers or carriers == [[*range(len(structure.factors))]]:
        return "cp"
    # In a train each label ties neighbours, and no two labels the same ones.
    neighbours = all(last - first == 1 for first, *_, last in carriers)
    return "tensor-train" if neighbours and len({own[0] for own in carriers}) == len(carriers) else None


def _is_tucker2(shapes: list[Shape]) -> bool:
    """Whether three factors are the output channels, the kernel and the input channels, from either end."""
    if len(shapes) != 3:
        return False
    one, core, other = shapes
    ends = ((one, other), (other, one))
    return prod(core[:2]) == 1 and any(prod(out) == out[0] and prod(inp) == inp[1] for out, inp in ends)
