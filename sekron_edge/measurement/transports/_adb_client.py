"""Android's own ``adb`` client: a shell, and files there and back, within a deadline."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sekron_edge.errors import DeviceError, UnreachableError
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._foreign import decoded, plain
from sekron_edge.measurement.transports._bounded import TooMuch, run_bounded

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
        if not separator or not re.fullmatch(r"[0-9]{1,3}\s*", status):
            raise UnreachableError(
                f"{self.device}: the connection was lost while it measured; is it still there?\n{shown(printed)}"
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

    def pull(self, source: str, target: Path, *, most: int) -> None:
        """Fetch a file of at most so many bytes.

        Raises:
            DeviceError: If it is larger, or no file.
        """
        self._run("pull", source, str(target), file=target, most=most)
        if not target.is_file():
            raise DeviceError(f"{self.device}: {source} did not come; measure again")

    def _run(self, *arguments: str, file: Path | None = None, most: int = 0) -> str:
        """Run the client; return what it printed.

        Args:
            arguments: Its command, and what that wants.
            file: That it writes here.
            most: Bytes that the file may have.

        Raises:
            UnreachableError: If the device is not there.
            DeviceError: If the client is absent, the device refuses, sends more than was asked for, or time is up.
        """
        client = shutil.which("adb")
        if client is None:
            raise DeviceError(f"{self.device}: there is no adb on this machine; install Android's platform tools")
        try:
            done = run_bounded([client, "-s", self.serial, *arguments], self.deadline, file=file, most=most)
        except TimeoutError as error:
            raise self.missed() from error
        except TooMuch as error:
            raise DeviceError(
                f"{self.device}: {error.what} of more than {error.allowed:,} bytes came, which nothing that was sent "
                "there makes; what runs there?"
            ) from error
        printed = done.stdout.decode(errors="replace").replace("\r\n", "\n")
        complaint = decoded(done.stderr).strip()
        if arguments[0] == "shell" and not complaint:
            return printed
        if done.status or complaint.startswith(("error:", "adb: error")):
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


def shown(printed: str) -> str:
    """Return the end of what was printed there, as people may see it."""
    return plain(printed.strip()[-_SHOWN_CHARACTERS:])


def _problem(printed: str) -> str:
    remedy = "; free some space there" if any(word in printed for word in _FULL) else ""
    return f"{shown(printed)}{remedy}"
