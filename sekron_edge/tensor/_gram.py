"""Products of a matrix with its own transpose: symmetric, so that little more than half of them is computed."""

from __future__ import annotations

from torch import Tensor

_BLOCKS = 4
# Rows from which on blocks are large enough to be as fast, value by value, as the whole.
_BLOCKED_FROM = 512


def gram_matrix(rows: Tensor) -> Tensor:
    """Return ``X X^T``: ``(.., m, n)`` to ``(.., m, m)``; of a large one only the blocks on and above the diagonal.

    With four rows of blocks that is 10 of 16 blocks, and takes two thirds of the time.
    """
    size = rows.shape[-2]
    if size < _BLOCKED_FROM:
        return rows @ rows.mT
    found = rows.new_empty(*rows.shape[:-1], size)
    height = -(-size // _BLOCKS)
    for top in range(0, size, height):
        below = top + height
        found[..., top:below, top:] = rows[..., top:below, :] @ rows[..., top:, :].mT
        found[..., below:, top:below] = found[..., top:below, below:].mT
    return found
