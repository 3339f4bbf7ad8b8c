"""Commands that have no network, and what they reached for.

That takes Linux, strace, and the right to make a network of one's own, in which nobody else is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

# Sockets that lead out of this machine's processes, to others than its kernel.
_OUTWARD = re.compile(r"(socket|connect)\(.*\bAF_(?!UNIX|NETLINK|UNSPEC)|io_uring_setup\(")
_TRACED = "execve,socket,connect,io_uring_setup"


def without_network(command: Sequence[str], log: Path) -> list[str]:
    """Return a command that runs another without a network.

    Args:
        command: The other.
        log: File for each program that it, or a process that it starts, runs, and each socket.
    """
    seen = ["strace", "--follow-forks", "--seccomp-bpf", "-qq", "--string-limit=200"]
    alone = ["unshare", "--net", "--map-root-user"]
    return [*seen, f"--trace={_TRACED}", f"--output={log}", *alone, *command]


def attempts(log: Path) -> list[str]:
    """Return what reached for the network, each as the call that strace saw."""
    return [line for line in log.read_text().splitlines() if _OUTWARD.search(line)]


@cache
def why_not() -> str:
    """Return why nothing can be run without a network here; nothing if it can."""
    if shutil.which("strace") is None or shutil.which("unshare") is None:
        return "strace or unshare is not installed"
    tried = subprocess.run(without_network(["true"], Path("/dev/null")), capture_output=True, text=True, check=False)
    return f"no network can be taken away here: {tried.stderr.strip()}" if tried.returncode else ""
