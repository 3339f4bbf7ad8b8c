"""Families of structures by name, and the structures that each offers for a weight. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from sekron_edge.errors import ConfigError
from sekron_edge.planner._names import DENSE, structure_name
from sekron_edge.plugins import Plugins
from sekron_edge.structure import Shape, Structure, chain, diagonal, full, mode_by_mode, ring, tucker2

# Ranks are offered at these shares of the full rank, rounded to multiples that fill vector units.
_SHARES = (0.03125, 0.0625, 0.09375, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.4375, 0.5, 0.5625, 0.625, 0.6875, 0.75)
_RANK_MULTIPLE = 4
_COARSE = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.75)


@dataclass(frozen=True)
class Family:
    """Structures of one kind.

    Attributes:
        name: Its name in plans. This package's own offer only what `structure_name` calls so.
        structures: Yields structures for the weight ``(F, C, *kernel)`` of one group, each of that shape; nothing where
            the family has nothing to offer. Structures with as many parameters as the weight are left out later.
        by_default: Whether it is offered if no families are named. Otherwise it is offered by name only, which suits
            families of many structures without errors in closed form: each of them is decomposed.
    """

    name: str
    structures: Callable[[Shape], Iterator[Structure]]
    by_default: bool = True


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


def _of_two_factors(name: str, ranks: Callable[[Shape, Shape], list[int]]) -> Callable[[Shape], Iterator[Structure]]:
    """Return what yields every Kronecker product of two factors that has the name, with these ranks."""

    def structures(shape: Shape) -> Iterator[Structure]:
        # Equal candidates differ in the order of factors: the first is kept, and begins with the output channels.
        for first, second in sorted(kronecker_splits(shape), key=lambda split: split[0][0] == 1):
            if structure_name(full([first, second], [1])) == name:
                yield from (full([first, second], [rank]) for rank in ranks(first, second))

    return structures


def _svd_ranks(first: Shape, second: Shape) -> list[int]:
    return ranks_up_to(min(prod(first), prod(second)))


def _split_ranks(first: Shape, second: Shape) -> list[int]:
    """Return ranks with which factors of split channels multiply less than the dense layer does.

    The full rank says little: of 16x16 out of 256 channels with a 3x3 kernel it is 256, and 14 components multiply as
    much as dense. With ``(f1, c1)`` and ``(f2, c2)`` channels and k1 and k2 taps, one component takes
    ``f2 c1 (c2 k2 + f1 k1)`` multiplications for each place if the second factor comes first.
    """

    def macs(before: Shape, after: Shape) -> int:
        return after[0] * before[1] * (prod(after[1:]) + before[0] * prod(before[2:]))

    dense = prod(first) * prod(second)
    fewer = (dense - 1) // min(macs(first, second), macs(second, first))
    return _rungs(min(prod(first), prod(second), fewer)) if fewer else []


def _tucker2s(shape: Shape) -> Iterator[Structure]:
    out, inp, *kernel = shape
    taps = prod(kernel)
    if taps > 1:
        yield from (
            tucker2(shape, rank_out, rank_in)
            for rank_out in ranks_up_to(out)
            for rank_in in ranks_up_to(inp)
            if rank_out <= rank_in * taps and rank_in <= rank_out * taps
        )


def _sekron3s(shape: Shape) -> Iterator[Structure]:
    """Yield structures whose three factors divide the modes among themselves, none split.

    Some of one component have other names: CP, and trains.
    """
    modes = mode_by_mode(shape)
    for owners in product(range(3), repeat=len(shape)):
        shapes = [
            tuple(prod(modes[n][axis] for n in range(len(shape)) if owners[n] == k) for axis in range(len(shape)))
            for k in range(3)
        ]
        if min(map(prod, shapes)) == 1:
            continue
        sizes = [prod(one) for one in shapes]
        for outer in _rungs(min(sizes[0], sizes[1] * sizes[2])):
            for inner in _rungs(min(sizes[1], sizes[2])):
                yield full(shapes, [outer, inner])


def _cps(shape: Shape) -> Iterator[Structure]:
    """Yield CP over single modes, and with the kernel's modes in one factor (a depthwise convolution)."""
    modes = mode_by_mode(shape)
    out, inp, *kernel = modes
    for shapes in (modes, [out, inp, (1, 1, *shape[2:])]) if len(kernel) > 1 else (modes,):
        if len(shapes) > 2:
            yield from (diagonal(shapes, rank) for rank in _rungs(2 * max(shape[:2])))


def _trains(shape: Shape) -> Iterator[Structure]:
    """Yield trains from the output channels over the kernel's modes to the input channels."""
    out, inp, *kernel = mode_by_mode(shape)
    if len(kernel) < 2:
        return  # Tucker-2, or the weight SVD
    sizes = [shape[0], *shape[2:], shape[1]]
    for first in _rungs(shape[0]):
        for last in _rungs(shape[1]):
            ranks = [first]
            for position in range(1, len(sizes) - 2):
                reachable = min(ranks[-1] * sizes[position], prod(sizes[position + 1 :]))
                ranks.append(max(1, min(reachable, (first + last) // 2)))
            if last <= ranks[-1] * sizes[-2]:
                yield chain([out, *kernel, inp], [*ranks, last])


def _rings(shape: Shape) -> Iterator[Structure]:
    modes = mode_by_mode(shape)
    if len(modes) > 2:
        for rank in range(2, max(3, int(min(shape[:2]) ** 0.5) + 1), 2):
            yield ring(modes, [rank] * len(modes))


def _rungs(limit: int) -> list[int]:
    """Return a coarse ladder, for families with two ranks or more, or whose errors take a decomposition each."""
    return sorted({max(1, round(limit * share)) for share in _COARSE})


# The errors of all but CP are known in closed form, for every rank at once; CP's few candidates are decomposed.
_BUILT_IN = (
    Family("weight-svd", _of_two_factors("weight-svd", _svd_ranks)),
    Family("spatial-svd", _of_two_factors("spatial-svd", _svd_ranks)),
    Family("tucker2", _tucker2s),
    Family("sekron-2", _of_two_factors("sekron-2", _split_ranks)),
    Family("sekron-3", _sekron3s, by_default=False),
    Family("cp", _cps),
    Family("tensor-train", _trains, by_default=False),
    Family("tensor-ring", _rings, by_default=False),
)
OWN_FAMILIES = frozenset(family.name for family in _BUILT_IN)
_ADDED: Plugins[Family] = Plugins("sekron_edge.families", "structure family")


def structure_families() -> dict[str, Family]:
    """Return all families by name: this package's in their order, then others' by name.

    A structure that several families offer counts as the first one's.
    """
    return {family.name: family for family in (*_BUILT_IN, *_ADDED.all())}


def added_families() -> list[str]:
    """Return the names of others' families that are offered where nobody names families."""
    return [family.name for family in _ADDED.all() if family.by_default]


def register_family(family: Family) -> None:
    """Make a family known by its name, beside those of the entry-point group ``sekron_edge.families``.

    Raises:
        ConfigError: If the name is taken.
    """
    if family.name in (DENSE, *structure_families()):
        raise ConfigError(f"a structure family named {family.name!r} exists; choose another name")
    _ADDED.register(family.name, family)
