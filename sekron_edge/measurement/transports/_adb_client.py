"""Android's own ``adb`` client: a shell, and files there and back, within a deadline."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sekron_edge.errors import DeviceError, UnreachableError
from sekron_edge.measurement._deadline import Deadline

_SHOWN_CHARACTERS = 800
_LOST = ("not found", "offline", "closed", "no devices", "connection reset", "protocol fault", "cannot connect")
_UNAUTHORIZED = ("unauthorized", "no permissions")
_FULL = ("No space left", "File too large", "Disk quota")


@dataclass(frozen=True)
class Adb:
    """One device, as long as a deadline lasts.

    Attributes:
        serial: Of the device.
        device: Its name, for messages.
        deadline: For all calls.
        missed: Makes the error for a deadline that passed.
    """

    serial: str
    device: str
    deadline: Deadline
    missed: Callable[[], DeviceError]

    def shell(self, script: str) -> tuple[int, str]:
        """Run a script there; return its status and what it printed.

        Old devices hand no status on: it is printed, and so is a word without which nothing is believed.
        """
        word = secrets.token_hex(8)
        printed = self._run("shell", f"{{ {script}\n}} 2>&1; status=$?; echo; echo {word} $status")
        output, separator, status = printed.rpartition(f"\n{word} ")
        if not separator or not status.strip().isdigit():
            raise UnreachableError(
                f"{self.device}: the connection was lost while it measured; is it still there?\n"
                f"{printed.strip()[-_SHOWN_CHARACTERS:]}"
            )
        return int(status), output

    def require(self, script: str) -> str:
        """Run a script that must end well; return what it printed.

        Raises:
            DeviceError: If it does not.
        """
        status, printed = self.shell(script)
        if status:
            raise DeviceError(f"{self.device}: its shell failed (status {status}): {_problem(printed)}")
        return printed

    def push(self, sources: Sequence[Path], target: str) -> None:
        """Send a file to a path there, or several into a folder."""
        self._run("push", *map(str, sources), target)

    def pull(self, source: str, target: Path) -> None:
        """Fetch a file."""
        self._run("pull", source, str(target))

    def _run(self, *arguments: str) -> str:
        """Run the client; return what it printed.

        Raises:
            UnreachableError: If the device is not there.
            DeviceError: If the client is absent, the device refuses, or time is up.
        """
        client = shutil.which("adb")
        if client is None:
            raise DeviceError(f"{self.device}: there is no adb on this machine; install Android's platform tools")
        try:
            done = subprocess.run(
                [client, "-s", self.serial, *arguments],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=self.deadline.left, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise self.missed() from error
        printed = done.stdout.decode(errors="replace").replace("\r\n", "\n")
        complaint = done.stderr.decode(errors="replace").strip()
        if arguments[0] == "shell" and not complaint:
            return printed
        if done.returncode or complaint.startswith(("error:", "adb: error")):
            raise self._error(complaint or printed.strip())
        return printed

    def _error(self, complaint: str) -> DeviceError:
        errors = [line for line in complaint.splitlines() if "error" in line]  # beside them it counts files
        problem = _problem("\n".join(errors) or complaint)
        if any(word in complaint for word in _UNAUTHORIZED):
            return DeviceError(
                f"{self.device}: it does not trust this machine: confirm the prompt on its screen\n{problem}"
            )
        if any(word in complaint for word in _LOST):
            return UnreachableError(
                f"{self.device}: it cannot be reached; is it plugged in, with USB debugging?\n{problem}"
            )
        return DeviceError(f"{self.device}: adb failed: {problem}")


def _problem(printed: str) -> str:
    remedy = "; free some space there" if any(word in printed for word in _FULL) else ""
    return f"{printed.strip()[-_SHOWN_CHARACTERS:]}{remedy}"
