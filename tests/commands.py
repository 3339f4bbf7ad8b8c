"""Command lines: run in this process, which has imported what they need, or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from tests import offline


class Ended(NamedTuple):
    """The exit code of a command, and what it printed."""

    code: int
    out: str
    err: str


def run(*arguments: object, cache: Path | None = None) -> Ended:
    """Run a command in this process.

    Args:
        *arguments: Of `sekron-edge`.
        cache: The command's own; by default the test's.
    """
    from sekron_edge.cli import main

    with _redirected("stdout", 1) as out, _redirected("stderr", 2) as err, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sekron-edge", *map(str, arguments)])
        if cache is not None:
            patch.setenv("SEKRON_EDGE_CACHE", str(cache))
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code, _text(out), _text(err))


@contextmanager
def _redirected(name: str, descriptor: int) -> Iterator[IO[bytes]]:
    """Send a stream of this process to a file: what Python writes, and what libraries in C do."""
    before = os.dup(descriptor)
    with (
        tempfile.TemporaryFile() as file,
        open(descriptor, "w", encoding="utf-8", closefd=False) as stream,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, name, stream)
        os.dup2(file.fileno(), descriptor)
        try:
            yield file
        finally:
            os.dup2(before, descriptor)
            os.close(before)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def run_without_network(*arguments: object, cache: Path, log: Path) -> Ended:
    """Run a command without a network, in a process of its own; where that cannot be, in this process, with one.

    Args:
        *arguments: Of `sekron-edge`.
        cache: The command's own.
        log: File for what it reached for; see `offline.attempts`.
    """
    if offline.why_not():
        return run(*arguments, cache=cache)
    process = _started(offline.without_network(_command(arguments), log), cache)
    out, err = process.communicate()
    return Ended(process.returncode, out, err)


def start(*arguments: object, cache: Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return _started(_command(arguments), cache)


def _command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "sekron_edge", *map(str, arguments)]


def _started(command: Sequence[str], cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, "SEKRON_EDGE_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
