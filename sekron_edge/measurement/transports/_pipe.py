"""This end of a pipe to a device: sends the agent there, and has it measure.

Anything that gives a pipe to a Python on the device will do: a command is all that is asked for.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sekron_edge import files
from sekron_edge.errors import DeviceError, UnreachableError
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import RUNNER
from sekron_edge.measurement._loading import RUNTIME_NAME, Loader, loader_elsewhere
from sekron_edge.measurement._protocol import (
    REQUEST_NAME,
    MeasurementRequest,
    Outcome,
    read_answer,
    read_outputs,
    require_end,
)

AGENT = Path(__file__).parents[1] / "on_device" / "agent.py"
# Read by the Python on the device: how long the agent is, and the agent. No quotes but those around it.
BOOTSTRAP = 'import sys; b = sys.stdin.buffer; exec(compile(b.read(int(b.readline())), "agent", "exec"))'
_WORD = "sekron-edge"
_KEEP = b"keep\n"
_RUNNER_NAME = "runner.py"
_GRACE_S = 5.0  # for the agent to say itself that time is up, and to clean up
_MOST_NOISE = 1 << 20  # what a device may print before the agent speaks
_CHUNK = 1 << 16
_COMPLAINT_CHARACTERS = 800


@dataclass(frozen=True)
class PipeBroken(Exception):  # noqa: N818 - the transport knows what it means, and raises an error
    """The pipe ended before the answer: the command's status, what it complained of, whether the agent spoke."""

    status: int
    complaint: str
    spoken: bool


@dataclass(frozen=True)
class _File:
    name: str
    path: Path
    kept: bool

    def described(self) -> dict[str, Any]:
        size, digest = self.path.stat().st_size, files.sha256(self.path)
        return {"name": self.name, "sha256": digest, "size": size, "kept": self.kept}


def measure_over_pipe(
    command: Sequence[str], request: MeasurementRequest, *, device: str, cache: str, deadline: Deadline
) -> Outcome:
    """Have the runner measure at the other end of a command's pipe.

    Args:
        command: Runs `BOOTSTRAP` in a Python on the device, its standard input and output connected to here.
        request: What to measure.
        device: For messages.
        cache: Folder on the device that keeps what was sent.
        deadline: For all of it.

    Raises:
        PipeBroken: If the pipe ends early.
        UnreachableError: If the device refuses for a reason that may pass.
        UnsupportedError: If no runtime of the format travels to devices.
        DeviceError: If it refuses, the runner fails, or time is up.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loader = loader_elsewhere(request.artifacts[0].format, device=device, names=request.names)
        paths = [f"{index}/{artifact.path.name}" for index, artifact in enumerate(request.artifacts)]
        collect = request.write(folder, paths, loader)
        sent = _files(request, folder, loader)
        envelope = {
            "token": request.token,
            "cache": cache,
            "timeout_s": deadline.left,
            "files": [file.described() for file in sent],
            "runner": _RUNNER_NAME,
            "job": REQUEST_NAME,
            "environment": request.environment,
            "collect": collect,
        }
        with _Pipe(command, deadline.left + _GRACE_S, device, request.token) as pipe:
            try:
                reply = pipe.converse(envelope, sent)
                if "refused" in reply:
                    raise _refusal(reply, deadline, device, request)
                stdout, stderr = pipe.take(reply["stdout"]), pipe.take(reply["stderr"])
                contents = [None if size is None else pipe.take(size) for size in reply["collected"]]
            except TimeoutError as error:
                raise deadline.missed(device, request) from error
            require_end(request, reply["status"], stderr, device)
            answer = read_answer(request, stdout, seconds=deadline.passed, device=device)
            for file, content in zip(collect, contents, strict=True):
                if content is not None:
                    (folder / file).write_bytes(content)
            outputs = tuple(
                read_outputs(artifact, folder / file, device)
                for artifact, file in zip(request.artifacts, collect, strict=False)
            )
            pipe.keep()
    return Outcome(answer, outputs)


def _refusal(reply: dict[str, Any], deadline: Deadline, device: str, request: MeasurementRequest) -> DeviceError:
    if reply["refused"] == "time is up":
        return deadline.missed(device, request)
    kind = UnreachableError if reply["transient"] else DeviceError
    return kind(f"{device}: {request.names} cannot be measured there: {reply['refused']}")


def _files(request: MeasurementRequest, folder: Path, loader: Loader) -> list[_File]:
    """Return what the folder on the device holds; it keeps the runner, and what is measured as users run it."""
    found = [_File(_RUNNER_NAME, RUNNER, kept=True)]
    found += [] if loader.travels is None else [_File(RUNTIME_NAME, loader.travels, kept=True)]
    found += [_File(path.name, path, kept=False) for path in files.files_below(folder)]
    for index, artifact in enumerate(request.artifacts):
        for path in files.files_below(artifact.path):
            below = path.relative_to(artifact.path.parent).as_posix()
            found.append(_File(f"{index}/{below}", path, kept=request.timed == "call"))
    return found


class _Pipe:
    """A command whose standard input and output lead to the device; killed when the time is up, or at the end."""

    def __init__(self, command: Sequence[str], seconds: float, device: str, token: str) -> None:
        self._device = device
        self._head = f"{_WORD} {token} ".encode()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the pipe
        self._late = threading.Event()
        self._spoken = False
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints
        )
        self._watch = threading.Timer(seconds, self._end)
        self._watch.daemon = True
        self._watch.start()

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        """End the conversation; the agent cleans up, and ends the command with itself."""
        for stream in (self._stdin, self._stdout):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._watch.cancel()
        self._complaints.close()

    def converse(self, envelope: dict[str, Any], sent: Sequence[_File]) -> dict[str, Any]:
        """Send the agent, the envelope and what is missing of its files; return the last line that it says."""
        source = AGENT.read_bytes()
        self._send(f"{len(source)}\n".encode() + source + json.dumps(envelope).encode() + b"\n")
        reply = self._listen()
        for index in reply.get("missing", ()):
            with sent[index].path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    if not self._send(chunk):
                        return self._listen()  # it stopped taking files, and says why
        return self._listen() if "missing" in reply else reply

    def take(self, size: int) -> bytes:
        """Return the next bytes that the agent sends."""
        content = self._stdout.read(size)
        if len(content) < size:
            raise self._broken()
        return content

    def keep(self) -> None:
        """Let the device keep what it was sent: all went well."""
        self._send(_KEEP)

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _send(self, content: bytes) -> bool:
        try:
            self._stdin.write(content)
            self._stdin.flush()
        except OSError:
            return False
        return True

    def _listen(self) -> dict[str, Any]:
        """Return the agent's next line; what the device's shell prints before it first speaks is passed over."""
        noise = 0
        while line := self._stdout.readline(_MOST_NOISE):
            if line.startswith(self._head) and line.endswith(b"\n"):
                self._spoken = True
                reply: dict[str, Any] = json.loads(line[len(self._head) :])
                return reply
            noise += len(line)
            if self._spoken or noise > _MOST_NOISE:
                raise DeviceError(
                    f"{self._device}: {line[:100]!r} came instead of an answer; does its shell print when it starts?"
                )
        raise self._broken()

    def _broken(self) -> Exception:
        status = self._process.wait()
        if self._late.is_set():
            return TimeoutError()
        self._complaints.seek(0)
        complaint = self._complaints.read().decode(errors="replace").strip()[-_COMPLAINT_CHARACTERS:]
        return PipeBroken(status, complaint, self._spoken)

    def _end(self) -> None:
        self._late.set()
        self._process.kill()
