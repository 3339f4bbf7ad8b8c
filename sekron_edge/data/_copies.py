"""Held-out files that are copies of training files: what is found on them is no figure of data that is new."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sekron_edge.data._files import FileTree

# Files whose contents are read at most: a data set of millions is not read as a whole before its job begins.
_MOST_READ = 200_000


@dataclass(frozen=True)
class Copies:
    """Which held-out files are copies.

    Attributes:
        of: From a held-out file's name to that of a training file with the same content.
        compared: How many held-out files were looked at.
    """

    of: Mapping[str, str]
    compared: int


def copies(tree: FileTree, train: Sequence[str], heldout: Sequence[str], *, most_read: int = _MOST_READ) -> Copies:
    """Compare held-out files with training files by their content.

    Only files whose size occurs in both are opened, of these the beginnings are compared, and only files that begin
    alike are read as a whole and hashed. Where more than ``most_read`` would have to be opened, fewer held-out files
    are compared, evenly spread.

    Raises:
        DataError: If one cannot be read; names it.
    """
    compared = heldout
    pairs = _alike([(train, compared)], tree.size)
    while len(compared) > 1 and sum(len(known) + len(held) for known, held in pairs) > most_read:
        compared = compared[::2]
        pairs = _alike([(train, compared)], tree.size)
    # The size is in the key: a small file may be another's beginning.
    pairs = _alike(pairs, lambda name: (tree.size(name), tree.beginning(name)))
    pairs = _alike(pairs, lambda name: hashlib.sha256(tree.read(name)).digest())
    return Copies({name: known[0] for known, held in pairs for name in held}, len(compared))


_Pairs = list[tuple[Sequence[str], Sequence[str]]]


def _alike(pairs: _Pairs, key: Callable[[str], Hashable]) -> _Pairs:
    """Divide training and held-out files by a key; only keys that both have are left."""
    found: _Pairs = []
    for train, heldout in pairs:
        held = _by(heldout, key)
        known = _by(train, key, held)
        found += [(known[value], held[value]) for value in known]
    return found


def _by(
    names: Iterable[str], key: Callable[[str], Hashable], wanted: Mapping[Hashable, object] | None = None
) -> dict[Hashable, list[str]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        value = key(name)
        if wanted is None or value in wanted:
            groups[value].append(name)
    return groups
