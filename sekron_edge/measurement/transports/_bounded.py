"""A client program that talks to a device: what it prints, and the file that it writes, come from there."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sekron_edge.measurement._deadline import Deadline

_CHUNK = 1 << 16
_LOOK_S = 0.2  # between two looks at a file that grows
_MOST_PRINTED = 1 << 24  # a round of hundreds of artifacts prints a tenth of that


@dataclass(frozen=True)
class TooMuch(Exception):  # noqa: N818 - the client's owner knows what it means, and raises an error
    """More than was asked for came: of what, and how many bytes are allowed."""

    what: str
    allowed: int


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    stdout: bytes
    stderr: bytes


def run_bounded(command: Sequence[str], deadline: Deadline, *, file: Path | None = None, most: int = 0) -> Ended:
    """Run a command without input; it is killed as soon as there is too much of anything.

    Args:
        command: Program and arguments.
        deadline: For all of it.
        file: That it writes.
        most: Bytes that the file may have.

    Raises:
        TimeoutError: If time is up.
        TooMuch: If it prints, or writes, more than is allowed.
    """
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        streams = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
        printed, complained = streams.values()
        try:
            while streams:
                _read(streams, min(_LOOK_S, deadline.left))
                if deadline.left <= 0:
                    raise TimeoutError
                if len(printed) + len(complained) > _MOST_PRINTED:
                    raise TooMuch("text", _MOST_PRINTED)
                _look(file, most)
            process.wait(deadline.left)
            _look(file, most)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error
        finally:
            process.kill()
    return Ended(process.returncode, bytes(printed), bytes(complained))


def _read(streams: dict[int, bytearray], seconds: float) -> None:
    """Take what is there of each stream, and leave those that have ended."""
    ready, _, _ = select.select(list(streams), [], [], seconds)
    for stream in ready:
        chunk = os.read(stream, _CHUNK)
        streams[stream] += chunk
        if not chunk:
            del streams[stream]


def _look(file: Path | None, most: int) -> None:
    if file is not None and file.exists() and (file.is_dir() or file.stat().st_size > most):
        raise TooMuch("a file", most)
