"""What proves that a job needs no network would notice if it did."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import offline

pytestmark = pytest.mark.skipif(bool(offline.why_not()), reason=offline.why_not())
REACHES = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5).close()"
STARTS = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"


def test_what_reaches_for_the_network_is_refused_and_seen_in_every_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", STARTS, REACHES, str(server.getsockname()[1])]
        subprocess.run(command, check=True)
        done = subprocess.run(offline.without_network(command, log), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Network is unreachable" in done.stderr
    made, connected = offline.attempts(log)
    assert "socket(AF_INET" in made
    assert "127.0.0.1" in connected


def test_what_reaches_for_nothing_goes_on_and_leaves_no_attempt(tmp_path: Path) -> None:
    local = "import socket; socket.socketpair()[0].close(); print('done')"
    command = offline.without_network([sys.executable, "-c", local], tmp_path / "log")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "done\n"
    assert "execve(" in (tmp_path / "log").read_text()
    assert offline.attempts(tmp_path / "log") == []
