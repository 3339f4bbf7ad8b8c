"""Squared singular values of all splits of a weight into two factors, from few products of the weight with itself.

The Gram matrix of a split's smaller side is a partial trace of a larger side's, which sums over the axes in which they
differ: for a 512x512x3x3 kernel, 72 products serve 398 splits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from sekron_edge.structure import Shape
from sekron_edge.tensor import gram_matrix, unfold


def energies(matrices: Tensor) -> Tensor:
    """Return the squared singular values, the largest first: ``(batch, m, n)`` to ``(batch, min(m, n))``."""
    return _eigenvalues(_smaller_gram(matrices))


def split_energies(weights: Tensor, splits: Iterable[tuple[Shape, ...]]) -> dict[tuple[Shape, ...], Tensor]:
    """Return the squared singular values of each split of each weight, the largest first.

    Args:
        weights: ``(groups, F, C, *kernel)``.
        splits: The shapes of two factors each, whose Kronecker product has a weight's shape.

    Returns:
        ``(groups, min(m, n))`` in float64 for each, m and n the values of the two factors.
    """
    leading: dict[Shape, tuple[Shape, ...]] = {}
    trailing: dict[Shape, tuple[Shape, ...]] = {}
    for first, second in splits:
        if prod(first) <= prod(second):
            leading[first] = first, second
        else:
            trailing[second] = first, second
    squares: dict[tuple[Shape, ...], Tensor] = {}
    for of_side in (leading, trailing):
        for side, gram in _grams(weights, of_side, of_side is leading):
            squares[of_side[side]] = _eigenvalues(gram)
    return squares


def _grams(
    weights: Tensor, of_side: Mapping[Shape, tuple[Shape, ...]], leading: bool
) -> Iterator[tuple[Shape, Tensor]]:
    """Yield the Gram matrix of each side; no more are in memory at a time than a side has ancestors."""
    whole = tuple(weights.shape[1:])
    children: dict[Shape | None, list[Shape]] = defaultdict(list)
    for side in of_side:
        children[_parent(side, whole, of_side)].append(side)

    def below(side: Shape, gram: Tensor) -> Iterator[tuple[Shape, Tensor]]:
        yield side, gram
        for child in children[side]:
            yield from below(child, _partial_trace(gram, side, child, leading))

    for root in children[None]:
        yield from below(root, _smaller_gram(torch.stack([unfold(group, of_side[root]) for group in weights])))


def _parent(side: Shape, whole: Shape, known: Container[Shape]) -> Shape | None:
    """Return the known side that is larger in one mode, by the smallest factor; None if there is none."""
    larger = [
        (*side[:mode], size * factor, *side[mode + 1 :])
        for mode, size in enumerate(side)
        for factor in range(2, whole[mode] // size + 1)
        if whole[mode] % (size * factor) == 0
    ]
    return min((other for other in larger if other in known), key=prod, default=None)


def _partial_trace(gram: Tensor, side: Shape, child: Shape, leading: bool) -> Tensor:
    """Sum over the digit of the mode in which the child is smaller.

    A mode's index is that of the first factor times the second's size, plus that of the second: a leading side loses
    the last digit of its index, a trailing one the first.
    """
    mode = next(mode for mode, (own, less) in enumerate(zip(side, child, strict=True)) if own != less)
    digit = side[mode] // child[mode]
    before, after = prod(side[:mode]), prod(side[mode + 1 :])
    split = (before * child[mode], digit, after) if leading else (before, digit, child[mode] * after)
    apart = gram.reshape(len(gram), *split, *split)
    return torch.einsum("gapbcpd->gabcd", apart).reshape(len(gram), prod(child), prod(child))


def _smaller_gram(matrices: Tensor) -> Tensor:
    rows, columns = matrices.shape[-2:]
    return gram_matrix(matrices if rows <= columns else matrices.mT)


def _eigenvalues(grams: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(grams)
    return values.double().clamp_min(0).flip(-1)
