"""Keeps converters and solvers quiet: they print from Python, from C and C++, and through logging."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

_SPOKEN_CHARACTERS = 2000


@contextmanager
def silenced() -> Iterator[IO[bytes]]:
    """Send an SDK's output to the file that is yielded, and drop its warnings."""
    _flush()
    saved = [os.dup(1), os.dup(2)]
    before = logging.root.manager.disable
    with tempfile.TemporaryFile() as spoken, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            os.dup2(spoken.fileno(), 1)
            os.dup2(spoken.fileno(), 2)
            yield spoken
        finally:
            logging.disable(before)
            _flush()
            for target, original in zip((1, 2), saved, strict=True):
                os.dup2(original, target)
                os.close(original)


def _flush() -> None:
    """Flush Python's and C's buffers: C writes to a pipe only when its buffer is full, or at the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(AttributeError, OSError, TypeError):  # where the C library cannot be opened without a name
        ctypes.CDLL(None).fflush(None)


def last_words(spoken: IO[bytes]) -> str:
    """Return the end of the output."""
    spoken.seek(0)
    return spoken.read().decode(errors="replace")[-_SPOKEN_CHARACTERS:]
