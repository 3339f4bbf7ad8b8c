"""What a layer may become: every structure worth pricing, and "leave it dense". No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

from pydantic import BaseModel, ConfigDict

from sekron_edge.planner._plan import LayerCost
from sekron_edge.structure import Shape, Structure, full, spatial_svd, tucker2, weight_svd

# Ranks are offered at these shares of the full rank, rounded to what vector units take whole.
_SHARES = (0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5625, 0.625, 0.75)
_RANK_MULTIPLE = 4


class Candidate(BaseModel):
    """One thing that a layer may become, priced; ``structure`` is ``None`` for dense."""

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


def ranks_up_to(limit: int) -> list[int]:
    """Return the ladder of ranks for a full rank of ``limit``; at least one."""
    ladder = {max(1, round(limit * share / _RANK_MULTIPLE) * _RANK_MULTIPLE) for share in _SHARES}
    return sorted(rank for rank in ladder if rank <= limit)


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


def kronecker_splits(shape: Shape) -> Iterator[tuple[Shape, Shape]]:
    """Yield every pair of mode shapes whose Kronecker product has ``shape``, trivial ones left out."""
    for first in product(*map(_divisors, shape)):
        second = tuple(size // part for size, part in zip(shape, first, strict=True))
        if 1 < prod(first) < prod(shape):
            yield first, second


def enumerate_structures(shape: Shape) -> Iterator[tuple[str, Structure]]:
    """Yield ``(family, structure)`` for the weight ``(F, C, *kernel)`` of one group, each with fewer parameters."""
    out, inp, *kernel = shape
    found: list[tuple[str, Structure]] = []
    found += [("weight-svd", weight_svd(shape, rank)) for rank in ranks_up_to(min(out, inp * prod(kernel)))]
    if len(kernel) == 2 and min(kernel) > 1:
        limit = min(out * kernel[1], inp * kernel[0])
        found += [("spatial-svd", spatial_svd(shape, rank)) for rank in ranks_up_to(limit)]
    if prod(kernel) > 1:
        found += [
            ("tucker2", tucker2(shape, rank_out, rank_in))
            for rank_out in ranks_up_to(out)
            for rank_in in ranks_up_to(inp)
            if rank_out <= rank_in * prod(kernel) and rank_in <= rank_out * prod(kernel)
        ]
    for first, second in kronecker_splits(shape):
        if first[0] == out and prod(first) == out:
            continue  # the weight SVD above
        limit = min(prod(first), prod(second))
        found += [("sekron-2", full([first, second], [rank])) for rank in ranks_up_to(limit)]
    seen: set[Structure] = set()
    for family, structure in found:
        if structure.num_params < prod(shape) and structure not in seen:
            seen.add(structure)
            yield family, structure


def undominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Drop each candidate that another one beats, or equals, in latency, bytes, MACs, peak and error at once."""

    def figures(candidate: Candidate) -> tuple[float, ...]:
        cost = candidate.cost
        return (
            candidate.relative_error,
            cost.latency_ms,
            cost.artifact_bytes,
            float(cost.macs),
            float(cost.peak_bytes),
        )

    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=figures):
        own = figures(candidate)
        if not any(all(a <= b for a, b in zip(figures(other), own, strict=True)) for other in kept):
            kept.append(candidate)
    return kept
