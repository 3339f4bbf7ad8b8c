"""Running a program on a file that somebody else made: with so much memory and no network, as far as the system can.

``python contained.py BYTES COMMAND...`` runs a command with at most so many bytes of memory of its own; nothing of
sekron-edge is imported for that.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

# From Linux's headers: a network of its own, with nobody else in it, and the rights to make one.
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MOST_WRITTEN = 1 << 32
# Core ML's evaluator, Vela, and what they import; and a few copies of a model's weights.
_BESIDE_MODEL, _TIMES_MODEL = 3 << 30, 8


def launcher(model_bytes: int) -> list[str]:
    """Return the beginning of a command line: what follows it is contained. Nothing is where Windows runs it.

    Args:
        model_bytes: Size of the largest file that the command will read; its memory is limited to a multiple.
    """
    if sys.platform == "win32":
        return []
    # -P: this program's folder, which is not its own to import from, stays out of its path.
    return [sys.executable, "-P", __file__, str(_BESIDE_MODEL + _TIMES_MODEL * model_bytes)]


def contain(memory_bytes: int) -> None:
    """Take from this process, and all that it starts from now on, what running a model does not need."""
    import resource  # which Windows lacks

    limits = ((resource.RLIMIT_DATA, memory_bytes), (resource.RLIMIT_FSIZE, _MOST_WRITTEN), (resource.RLIMIT_CORE, 0))
    for kind, most in limits:
        with suppress(OSError, ValueError):  # a system may not know it, or be stricter already
            resource.setrlimit(kind, (most, most))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if libc.unshare(_CLONE_NEWNET) != 0:
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)  # where containers refuse this too, there is a network


if __name__ == "__main__":
    contain(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the very command that was given
