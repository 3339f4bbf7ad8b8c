"""Structures: the one object behind SeKron, CP, Tucker, tensor train and tensor ring.

A weight tensor with modes ``w_1 .. w_N`` is written as a sum, over rank labels, of Kronecker products of S
factors (SeKron: arXiv 2210.06299, GKPD: 2109.14710).
What distinguishes the families is only which labels each factor carries: the coupling.

This module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from sekron_edge.errors import RankError, StructureError

Shape = tuple[int, ...]
Coupling = Literal["full", "chain", "ring", "diagonal", "star", "other"]


class Factor(BaseModel):
    """One factor: its mode shape, and the rank labels it carries.

    The factor's values have one axis a label, then one axis a mode.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape
    labels: tuple[str, ...] = ()


def _pairs(ranks: object) -> object:
    return tuple(ranks.items()) if isinstance(ranks, Mapping) else ranks


# Given as a mapping or as pairs, held as pairs, written as an object.
Ranks = Annotated[
    tuple[tuple[str, int], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict, return_type=dict[str, int]),
]


class Structure(BaseModel):
    """``W = sum over labels of A^(1)[labels_1] (x) ... (x) A^(S)[labels_S]``, the first factor outermost.

    A structure is a value: the order in which its ranks are given does not matter.

    Attributes:
        factors: From the outermost to the innermost.
        ranks: Every label and its size. Labels stand in the order in which their family numbers them, whatever they are
            called; in no family, in the order in which they are met from the innermost factor on.

    Raises:
        StructureError: If factors disagree on the number of modes, a mode is empty, or labels do not match.
        RankError: If a rank is not positive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: tuple[Factor, ...]
    ranks: Ranks

    def model_post_init(self, _context: Any) -> None:
        """Check that the factors and their labels fit together, and put the ranks in order."""
        if not self.factors:
            raise StructureError("a structure needs at least one factor, got none")
        orders = {len(factor.shape) for factor in self.factors}
        if len(orders) != 1:
            raise StructureError(f"all factors must have the same number of modes, got {sorted(orders)}")
        for position, factor in enumerate(self.factors, start=1):
            if any(size < 1 for size in factor.shape):
                raise StructureError(f"factor {position}: every mode must be at least 1, got {factor.shape}")
            if len(set(factor.labels)) != len(factor.labels):
                raise StructureError(f"factor {position}: a label must occur once, got {factor.labels}")
        _, labels = self._recognized()
        given = self.labels
        if given != labels and sorted(given) != sorted(labels):
            raise StructureError(
                f"labels of factors and ranks must be the same, got {sorted(labels)} and {sorted(given)}"
            )
        for label, rank in self.ranks:
            if rank < 1:
                raise RankError(f"rank {label} must be at least 1, got {rank}")
        if given != labels:
            sizes = dict(self.ranks)
            object.__setattr__(self, "ranks", tuple((label, sizes[label]) for label in labels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label, in the order of the ranks."""
        return tuple([label for label, _ in self.ranks])

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of every label, in the order of the ranks."""
        return tuple([size for _, size in self.ranks])

    def rank(self, label: str) -> int:
        """Return the size of a label.

        Raises:
            StructureError: If no factor carries it.
        """
        for known, size in self.ranks:
            if known == label:
                return size
        raise StructureError(f"a label must be one of {', '.join(self.labels)}, got {label!r}")

    @cached_property
    def shape(self) -> Shape:
        """Shape of the tensor: for every mode, the product over the factors."""
        return tuple(prod(sizes) for sizes in zip(*(factor.shape for factor in self.factors), strict=True))

    @property
    def whole_outputs(self) -> tuple[int, ...]:
        """Numbers of the factors that have all output channels; none where these are split among factors."""
        return tuple([k for k, factor in enumerate(self.factors) if factor.shape[0] == self.shape[0]])

    @property
    def num_params(self) -> int:
        """Number of stored values."""
        sizes = dict(self.ranks)
        return sum([prod([sizes[label] for label in own.labels]) * prod(own.shape) for own in self.factors])

    def value_shape(self, k: int) -> Shape:
        """Shape of factor ``k``'s values (0 is the outermost): its label sizes, then its modes."""
        factor = self.factors[k]
        sizes = dict(self.ranks)
        return (*[sizes[label] for label in factor.labels], *factor.shape)

    @cached_property
    def coupling(self) -> Coupling:
        """Which family the labels make; two factors that share one label are ``full``, as they are all of them."""
        return self._recognized()[0]

    def _recognized(self) -> tuple[Coupling, tuple[str, ...]]:
        carried = tuple([factor.labels for factor in self.factors])
        return _recognized(carried, has_core=prod(self.factors[-1].shape) == 1)

    def canonical_labels(self, k: int) -> tuple[str, ...]:
        """Return factor ``k``'s labels in the order in which its coupling writes them, whatever the factor's own is."""
        if self.coupling == "other":
            return self.factors[k].labels
        labels = self.labels
        return tuple(labels[number] for number in _PATTERNS[self.coupling](len(self.factors))[k])

    def with_ranks(self, **ranks: int) -> Structure:
        """Return the same structure with other sizes of some labels."""
        return Structure(factors=self.factors, ranks={**dict(self.ranks), **ranks})

    def merged(self, k: int) -> Structure:
        """Return the structure with factors ``k`` and ``k + 1`` as one; labels that only these two carry are gone."""
        left, right = self.factors[k], self.factors[k + 1]
        others = {label for j, factor in enumerate(self.factors) if j not in (k, k + 1) for label in factor.labels}
        labels = dict.fromkeys(label for label in (*left.labels, *right.labels) if label in others)
        joined = Factor(
            shape=tuple(a * b for a, b in zip(left.shape, right.shape, strict=True)),
            labels=tuple(labels),
        )
        factors = (*self.factors[:k], joined, *self.factors[k + 2 :])
        carried = {label for factor in factors for label in factor.labels}
        return Structure(factors=factors, ranks=[(label, rank) for label, rank in self.ranks if label in carried])

    @property
    def mergeable(self) -> int | None:
        """The first of two adjacent pointwise factors that have no fewer values than the one they make; None: none do.

        One factor in place of two computes no more, and approximates at least as well.
        """
        for k, (left, right) in enumerate(pairwise(self.factors)):
            if prod(left.shape[2:]) == prod(right.shape[2:]) == 1:
                apart = prod(self.value_shape(k)) + prod(self.value_shape(k + 1))
                one = self.merged(k)
                if prod(one.value_shape(k)) <= apart:
                    return k
        return None

    def __str__(self) -> str:
        parts = []
        for factor in self.factors:
            labels = ",".join(f"{label}={self.rank(label)}" for label in factor.labels)
            parts.append(f"({'x'.join(map(str, factor.shape))})[{labels}]")
        return " ⊗ ".join(parts)

    __repr__ = __str__


def _full_labels(count: int) -> list[Sequence[int]]:
    return [range(min(k + 1, count - 1)) for k in range(count)]


def _chain_labels(count: int) -> list[Sequence[int]]:
    return [[label for label in (k - 1, k) if 0 <= label < count - 1] for k in range(count)]


def _ring_labels(count: int) -> list[Sequence[int]]:
    return [[count - 1, 0], *([k - 1, k] for k in range(1, count))]


def _diagonal_labels(count: int) -> list[Sequence[int]]:
    return [[0]] * count


def _star_labels(count: int) -> list[Sequence[int]]:
    return [*([k] for k in range(count - 1)), range(count - 1)]


# For a number of factors, the numbers of the labels that each carries.
_PATTERNS: dict[Coupling, Callable[[int], list[Sequence[int]]]] = {
    "full": _full_labels,
    "chain": _chain_labels,
    "ring": _ring_labels,
    "diagonal": _diagonal_labels,
    "star": _star_labels,
}


_Label = TypeVar("_Label", str, int)


def _carriers(carried: Sequence[Sequence[_Label]]) -> dict[_Label, list[int]]:
    """Return the factors that carry each label; labels as they are met from the innermost factor on."""
    labels = dict.fromkeys(label for own in reversed(carried) for label in own)
    return {label: [k for k, own in enumerate(carried) if label in own] for label in labels}


@lru_cache(maxsize=1024)
def _recognized(carried: tuple[tuple[str, ...], ...], *, has_core: bool) -> tuple[Coupling, tuple[str, ...]]:
    """Return which coupling the labels of factors make, and the labels in the order in which it numbers them.

    It is remembered: thousands of candidates have the same few labels.

    Args:
        carried: Each factor's labels.
        has_core: Whether the last factor spans no mode, as a star's core.

    Raises:
        StructureError: If only one factor carries a label.
    """
    carriers = _carriers(carried)
    for label, factors in carriers.items():
        if len(factors) < 2:
            raise StructureError(f"label {label!r} must be shared by two factors or more, one carries it")
    for name, pattern in _PATTERNS.items():
        expected = [numbered for _, numbered in sorted(_carriers(pattern(len(carried))).items())]
        if (name != "star" or has_core) and sorted(expected) == sorted(carriers.values()):
            return name, tuple(sorted(carriers, key=lambda label: expected.index(carriers[label])))
    return "other", tuple(carriers)


def _coupled(coupling: Coupling, shapes: Sequence[Shape], ranks: Sequence[int]) -> Structure:
    carried = _PATTERNS[coupling](len(shapes))
    expected = 1 + max((label for labels in carried for label in labels), default=-1)
    if len(ranks) != expected:
        raise RankError(f"{coupling} of {len(shapes)} factors needs {expected} ranks, got {len(ranks)}: {tuple(ranks)}")
    return Structure(
        factors=tuple(
            Factor(shape=tuple(shape), labels=tuple(f"r{label + 1}" for label in labels))
            for shape, labels in zip(shapes, carried, strict=True)
        ),
        ranks={f"r{number}": rank for number, rank in enumerate(ranks, start=1)},
    )


def full(shapes: Sequence[Shape], ranks: Sequence[int]) -> Structure:
    """SeKron: factor k carries r1..rk, the last one all of r1..r_{S-1}.

    Args:
        shapes: Mode shape of each of the S factors, outermost first.
        ranks: S - 1 ranks.

    Raises:
        RankError: If the number of ranks is wrong.
    """
    return _coupled("full", shapes, ranks)


def chain(shapes: Sequence[Shape], ranks: Sequence[int]) -> Structure:
    """Tensor train: factor k carries r_{k-1} and r_k; S - 1 ranks.

    Raises:
        RankError: If the number of ranks is wrong.
    """
    return _coupled("chain", shapes, ranks)


def ring(shapes: Sequence[Shape], ranks: Sequence[int]) -> Structure:
    """Tensor ring: as a chain whose first and last factor share a label too; S ranks, the shared one last.

    Raises:
        RankError: If the number of ranks is wrong.
    """
    return _coupled("ring", shapes, ranks)


def diagonal(shapes: Sequence[Shape], rank: int) -> Structure:
    """CP: every factor carries the one label."""
    return _coupled("diagonal", shapes, [rank])


def star(shapes: Sequence[Shape], ranks: Sequence[int]) -> Structure:
    """Tucker: every factor has a label of its own, and a core, added last, carries them all; as many ranks as shapes.

    Raises:
        RankError: If the number of ranks is wrong.
    """
    core = (1,) * len(shapes[0])
    return _coupled("star", [*shapes, core], ranks)


def mode_by_mode(shape: Shape) -> list[Shape]:
    """Return a factor's mode shape for each mode of a tensor: what CP, Tucker, tensor train and ring split it into."""
    return [tuple(size if n == k else 1 for n in range(len(shape))) for k, size in enumerate(shape)]


def tucker2(weight_shape: Shape, rank_out: int, rank_in: int) -> Structure:
    """Tucker-2 of a convolution's weight ``(F, C, *kernel)``: a chain of three factors.

    Raises:
        RankError: If ``rank_out`` exceeds F or ``rank_in`` exceeds C.
    """
    out, inp, *kernel = weight_shape
    if rank_out > out or rank_in > inp:
        raise RankError(f"Tucker-2 ranks must be at most ({out}, {inp}), got ({rank_out}, {rank_in})")
    ones = (1,) * len(kernel)
    return chain([(out, 1, *ones), (1, 1, *kernel), (1, inp, *ones)], [rank_out, rank_in])


def weight_svd(weight_shape: Shape, rank: int) -> Structure:
    """Split between the output channels and all the rest: a small convolution, then a pointwise one."""
    out, inp, *kernel = weight_shape
    return chain([(out, 1, *(1 for _ in kernel)), (1, inp, *kernel)], [rank])


def spatial_svd(weight_shape: Shape, rank: int) -> Structure:
    """Split a 2-D convolution into a vertical one and a horizontal one.

    Raises:
        StructureError: If the weight has other than 4 modes.
    """
    if len(weight_shape) != 4:
        raise StructureError(f"a spatial split needs a weight of 4 modes (F, C, Kh, Kw), got {weight_shape}")
    out, inp, height, width = weight_shape
    return chain([(out, 1, 1, width), (1, inp, height, 1)], [rank])
