"""A board for tests: a real sshd on loopback, which runs what it is asked as the user who runs the tests.

Keys, configuration and the board's files lie in one folder. The board's Python is a script with spaces and quotes in
its path; the first argument says what is wrong with the board, or with its runtime, in whose place is `STUB` then.
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

STUB = Path(__file__).with_name("stub_runtime")
_MARK = "SEKRON_EDGE_TEST_BOARD"
_PATIENCE_S = 30.0


class Board:
    """A board that is reached as ``ssh:board``, with the file ``devices`` as the user's own.

    Args:
        folder: Empty; for all that is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.devices = folder / "devices.toml"
        self.home = folder / "home"
        self.cache = self.home / "a 'cache' of \"files\""
        self.home.mkdir()
        self.python = self._write_python()
        self.port = _free_port()
        for key in ("host", "user", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        self.known = folder / "known"
        self.know("host")
        self.ssh_config = folder / "ssh_config"
        self.login("user")
        self._sshd = self._start()

    def know(self, key: str | None) -> None:
        """Let the user know this key of the board; none if None."""
        text = "" if key is None else f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}"
        self.known.write_text(text)

    def login(self, key: str) -> None:
        """Let the user log in with this key."""
        self.ssh_config.write_text(
            f"Host board\n HostName 127.0.0.1\n Port {self.port}\n IdentityFile {self.folder / key}\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {self.known}\n GlobalKnownHostsFile /dev/null\n"
        )

    def settings(self, fault: str = "none", **changes: object) -> dict[str, object]:
        """Return a table of the user's file for this board."""
        given = {"host": "board", "ssh_config": str(self.ssh_config), "cache": str(self.cache)}
        return {**given, "python": [str(self.python), fault], **changes}

    def write(self, **tables: dict[str, object]) -> None:
        """Write the user's file."""
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
        self.devices.write_text("\n".join(lines) + "\n")

    def unplug(self, pattern: str = "") -> None:
        """Cut every connection that there is, or that of the job whose folder's path has a part like this."""
        for process in psutil.Process(self._sshd.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # others' connections end meanwhile
                if self._works_in(process, pattern):
                    for one in [process, *(child for child in process.children() if child.name().startswith("sshd"))]:
                        one.kill()

    def _works_in(self, process: psutil.Process, pattern: str) -> bool:
        """Say whether a process below this one works in such a folder."""
        for child in process.children(recursive=True) if pattern else []:
            with contextlib.suppress(psutil.Error):
                if f"/{pattern}/" in f"{child.cwd()}/":
                    return True
        return not pattern

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing come from it, while no connection is cut: the network's cable is out."""
        found = [
            one for one in psutil.Process(self._sshd.pid).children(recursive=True) if one.name().startswith("sshd")
        ]
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                process.resume()

    def stop(self) -> None:
        """Switch it off."""
        self.unplug()
        self._sshd.kill()
        self._sshd.wait()

    def processes(self, pattern: str = "") -> list[psutil.Process]:
        """Return what the board runs."""
        return [process for process in psutil.process_iter() if self._is_here(process) and _says(process, pattern)]

    def files(self) -> list[str]:
        """Return what lies on the board, below its home."""
        return sorted(str(path.relative_to(self.home)) for path in self.home.rglob("*"))

    def wait_for_silence(self) -> None:
        """Wait until the board runs nothing; that may take a moment after a connection was cut."""
        end = time.monotonic() + _PATIENCE_S
        while found := self.processes():
            assert time.monotonic() < end, [process.cmdline() for process in found]
            time.sleep(0.05)

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            here: bool = process.environ().get(_MARK) == str(self.folder)
            return here and bool(process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.Error, OSError):
            return False

    def _write_python(self) -> Path:
        path = self.folder / 'it\'s a "board"' / "python $HOME"
        path.parent.mkdir()
        quoted = {name: shlex.quote(str(value)) for name, value in (("home", self.home), ("stub", STUB))}
        path.write_text(
            "#!/bin/sh\n"
            f"export {_MARK}={shlex.quote(str(self.folder))} HOME={quoted['home']} SEKRON_EDGE_FAULT=$1\n"
            "shift\n"
            "case $SEKRON_EDGE_FAULT in\n"
            f"none|real) ;; *) export PYTHONPATH={quoted['stub']} ;;\n"
            "esac\n"
            "case $SEKRON_EDGE_FAULT in\n"
            "greeting) echo 'Welcome to the board!' ;;\n"
            "noise) head -c 3000000 /dev/zero | tr '\\0' 'x' ;;\n"
            "cut) head -c 8000 >/dev/null; exit 0 ;;\n"
            "old) echo 'SyntaxError: invalid syntax' >&2; exit 1 ;;\n"
            "absent) exec /nowhere/python ;;\n"
            "foreign) exec " + shlex.quote(str(self._foreign_program())) + " ;;\n"
            "quota) ulimit -f 4 ;;\n"
            'full) exec unshare -Urm sh -c \'mount -t tmpfs -o size=16k tmpfs "$HOME" && exec "$@"\' '
            f'- {shlex.quote(sys.executable)} "$@" ;;\n'
            "esac\n"
            f'exec {shlex.quote(sys.executable)} "$@"\n'
        )
        path.chmod(0o755)
        return path

    def _foreign_program(self) -> Path:
        """Write the head of a program for a processor that nobody has."""
        path = self.folder / "foreign"
        path.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x02\0\xfe\xfe" + b"\0" * 44)
        path.chmod(0o755)
        return path

    def _start(self) -> subprocess.Popen[bytes]:
        program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program is not None, "no sshd: apt-get install openssh-server"
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd as root wants it; an init system would have made it
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder / 'host'}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.folder / 'authorized'}\nStrictModes no\nPasswordAuthentication no\n"
            "PermitRootLogin yes\nMaxStartups 100\nMaxSessions 100\n"
        )
        log = (self.folder / "sshd.log").open("wb")
        started = subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end and started.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return started
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())


def _says(process: psutil.Process, pattern: str) -> bool:
    try:
        return pattern in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
