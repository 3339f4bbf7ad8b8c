"""The number of torch's threads within a block; work that is divided among threads in large pieces."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_TURN_S = 2e-4
Given = TypeVar("Given")
Result = TypeVar("Result")


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads within the block; None changes nothing.

    Many small decompositions need one thread: with more, the threads spend their time waiting for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def each_on_a_thread(work: Callable[[Given], Result], items: Sequence[Given]) -> list[Result]:
    """Return a function's results for all items, in order; each item runs on one of as many threads as torch has.

    Many small decompositions use all cores in this way, and hardly two with torch's own threads.
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
    """Let the interpreter change threads sooner: a computing thread would wait 5 ms after every operation."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
