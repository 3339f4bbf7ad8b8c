"""What SDKs print stays out of results."""

import os
import subprocess
import sys

NOISY = """
import ctypes, sys
from sekron_edge.silence import silenced
print("before")
with silenced():
    ctypes.CDLL(None).printf(b"from C\\n")
    print("from Python", file=sys.stderr)
print("after")
"""


def test_what_c_holds_back_does_not_come_out_later() -> None:
    """Into a pipe, C's printf is written when the buffer is full or the process ends, long after the block."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True, env=environment)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")
