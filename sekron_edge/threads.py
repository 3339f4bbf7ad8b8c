"""How many threads torch may use, for a while; and work that is shared out among them in large pieces."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_TURN_S = 2e-4
Given = TypeVar("Given")
Found = TypeVar("Found")


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads within the block; None changes nothing.

    Many small decompositions want one: with more, the threads spend their time waiting for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each_on_a_thread(work: Callable[[Given], Found], items: Sequence[Given]) -> list[Found]:
    """Return what a function makes of each item, in order: as many at a time as torch has threads, each on one.

    Where the work is many small decompositions, that takes all cores, and torch's own threads take hardly two.
    """
    workers = torch.get_num_threads()
    with (
        torch_threads(1),
        _short_turns(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        return list(pool.map(work, items))


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let the interpreter pass from thread to thread soon: one that computes would wait 5 ms after every operation."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
