"""Let faults happen, each drawn from its own seed, and say what became of them."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.campaign.bundles import planned
from tests.campaign.kinds import prepared
from tests.campaign.subjects import Accepting, Subject

LIMIT_S, SILENT_S = 20, 240
MOST_BYTES = 1 << 30
REFUSED, UNHARMED, SOUND = "refused", "unharmed", "taken, and sound"
GOOD = (REFUSED, UNHARMED, SOUND)
BAD = ("lost", "leaked", "traceback", "past its limit", "crash", "wrong")
_SHOWN = 5


class PastLimit(BaseException):
    """Not an Exception, lest somebody catch it."""


@dataclass
class Tally:
    """What became of the faults of one kind.

    Attributes:
        counts: Of each outcome.
        examples: Of bad outcomes: the fault's number, the outcome and what was seen.
    """

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[int, str, str]] = field(default_factory=list)

    def note(self, number: int, outcome: str, seen: str) -> None:
        self.counts[outcome] += 1
        if outcome in BAD and len(self.examples) < _SHOWN:
            self.examples.append((number, outcome, seen))

    @property
    def bad(self) -> int:
        """How many faults ended as none may."""
        return sum(self.counts[outcome] for outcome in BAD)


def suffered(kind: str, numbers: range, *, seed: int = 0) -> Tally:
    """Let the faults of some numbers happen, in a process of their own; one that it dies of is a crash."""
    tally = Tally(kind)
    planned()
    left = numbers
    context = multiprocessing.get_context("fork")
    while left:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_suffer, args=(kind, left, seed, there))
        process.start()
        there.close()
        done = 0
        try:
            while here.poll(SILENT_S):
                tally.note(*here.recv())
                done += 1
            process.kill()  # what runs no Python cannot be interrupted
            outcome, seen = "past its limit", f"nothing was heard for {SILENT_S} s"
        except EOFError:
            process.join()
            outcome, seen = "crash", f"the process ended with {process.exitcode}"
        if done < len(left):
            tally.note(left[done], outcome, seen)
            done += 1
        left = left[done:]
    return tally


def _suffer(kind: str, numbers: range, seed: int, told: Connection) -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)  # a fork does not have the other threads, and would wait for them
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as folder, prepared(kind, Path(folder)) as subject:
        before = _unharmed(subject)
        _limit_memory()
        for number in numbers:
            told.send((number, *_outcome(subject, Random(f"{kind} {seed} {number}"), before)))
    told.close()


def _unharmed(subject: Subject) -> Any:
    """Return the result for what nothing has harmed: what is refused anyway shows nothing."""
    if subject.accepting is Accepting.NEVER or subject.alter is None:
        return None
    found = subject.use()
    if not subject.sound(found):
        raise ValueError(f"{found!r} is not sound, and nothing has harmed it")
    return found


def _limit_memory() -> None:
    """Let the process take a gibibyte more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _stop(*_: Any) -> None:
    raise PastLimit


@contextmanager
def _limited() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _outcome(subject: Subject, drawn: Random, before: Any) -> tuple[str, str]:
    """Return what became of one fault, and what was seen of it."""
    subject.damage(drawn)
    present = subject.contents()
    started = time.monotonic()
    try:
        with _limited():
            found = subject.use()
            outcome = _judged(subject, found, before)
    except subject.refusals as error:
        outcome = (REFUSED, str(error)) if str(error).strip() else ("traceback", "an error without a word")
    except PastLimit:
        outcome = "past its limit", f"not done after {time.monotonic() - started:.0f} s"
    except BaseException:  # noqa: BLE001 - whatever it is, it should not have come so far
        outcome = "traceback", traceback.format_exc(limit=-3)
    if subject.victims:
        outcome = _kept(present, subject.contents()) or outcome
    subject.mend()
    return outcome


def _judged(subject: Subject, found: Any, before: Any) -> tuple[str, str]:
    match subject.accepting:
        case Accepting.NEVER:
            return "wrong", "nothing was refused"
        case Accepting.UNCHANGED:
            return (UNHARMED, "") if found == before else ("wrong", f"{found!r} is not {before!r}"[:500])
        case _:
            return (SOUND, "") if subject.sound(found) else ("wrong", f"{found!r} is not sound"[:2000])


def _kept(before: dict[Path, bytes], after: dict[Path, bytes]) -> tuple[str, str] | None:
    """Return what was lost of what lay there, or left behind."""
    if lost := [path for path, content in before.items() if after.get(path) != content]:
        return "lost", f"{lost[0]} is gone, or was altered"
    if leaked := [path for path in after if path not in before]:
        return "leaked", f"{leaked[0]} was left behind"
    return None
