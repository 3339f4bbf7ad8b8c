"""This end of a pipe to a device: sends the agent there, and has it measure.

Anything that gives a pipe to a Python on the device will do: a command is all that is asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sekron_edge import files
from sekron_edge.errors import DeviceError, UnreachableError
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import RUNNER
from sekron_edge.measurement._foreign import Plain, decoded
from sekron_edge.measurement._loading import RUNTIME_NAME, Loader, loader_elsewhere
from sekron_edge.measurement._protocol import (
    REQUEST_NAME,
    MeasurementRequest,
    Outcome,
    most_output_bytes,
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
_MOST_PRINTED = 1 << 24  # by the runner; an answer of a hundred thousand runs is a tenth of that
_CHUNK = 1 << 16
_COMPLAINT_CHARACTERS = 800
_COMPLAINT_BYTES = 1 << 16


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Missing(_Message):
    """The numbers of the files that the agent does not have."""

    missing: tuple[Annotated[int, Field(ge=0)], ...]


class _Refused(_Message):
    refused: Plain
    transient: bool


class _Ended(_Message):
    """The runner's status, and the lengths of what follows; None for a file that it did not write."""

    status: int = Field(ge=-64, le=255)
    stdout: int = Field(ge=0, le=_MOST_PRINTED)
    stderr: int = Field(ge=0, le=_MOST_PRINTED)
    collected: tuple[Annotated[int, Field(ge=0)] | None, ...]


_Reply = _Missing | _Refused | _Ended
_REPLY: TypeAdapter[_Reply] = TypeAdapter(_Reply)


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
                if isinstance(reply, _Refused):
                    raise _refusal(reply, deadline, device, request)
                allowed = most_output_bytes(request) if collect else []
                _require_expected(reply, allowed, device)
                stdout, stderr = pipe.take(reply.stdout), pipe.take(reply.stderr)
                contents = [None if size is None else pipe.take(size) for size in reply.collected]
            except TimeoutError as error:
                raise deadline.missed(device, request) from error
            require_end(request, reply.status, stderr, device)
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


def _refusal(reply: _Refused, deadline: Deadline, device: str, request: MeasurementRequest) -> DeviceError:
    if reply.refused == "time is up":
        return deadline.missed(device, request)
    kind = UnreachableError if reply.transient else DeviceError
    return kind(f"{device}: {request.names} cannot be measured there: {reply.refused}")


def _require_expected(reply: _Ended, allowed: Sequence[int], device: str) -> None:
    """Refuse more, or larger, files than were asked for."""
    lengths = [size or 0 for size in reply.collected]
    if len(lengths) != len(allowed) or any(size > most for size, most in zip(lengths, allowed, strict=True)):
        raise DeviceError(
            f"{device}: files of {lengths[:3]} bytes are announced where {len(allowed)} of at most "
            f"{max(allowed, default=0)} were asked for: the agent there is not the one that was sent"
        )


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


class _Incoming:
    """What a pipe brings, as long as there is time."""

    def __init__(self, descriptor: int, deadline: Deadline) -> None:
        self._descriptor = descriptor
        self._deadline = deadline
        self._held = bytearray()

    def line(self, most: int) -> bytes:
        """Return what comes up to the end of a line, or so much; less at the end of the pipe.

        Raises:
            TimeoutError: If time is up.
        """
        looked_at = 0
        while (end := self._held.find(b"\n", looked_at)) < 0 and len(self._held) < most:
            looked_at = len(self._held)
            if not self._more():
                break
        return self._taken(min(end + 1, most) if end >= 0 else most)

    def exactly(self, size: int) -> bytes:
        """Return so many bytes; less at the end of the pipe.

        Raises:
            TimeoutError: If time is up.
        """
        while len(self._held) < size and self._more():
            pass
        return self._taken(size)

    def _more(self) -> bool:
        ready, _, _ = select.select([self._descriptor], [], [], self._deadline.left)
        if not ready:
            raise TimeoutError
        chunk = os.read(self._descriptor, _CHUNK)
        self._held += chunk
        return bool(chunk)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


class _Complaint(threading.Thread):
    """Reads what a command complains of, and keeps the end of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._kept = b""

    def run(self) -> None:
        """Read to the end."""
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self._stream.fileno(), _CHUNK):
                self._kept = (self._kept + chunk)[-_COMPLAINT_BYTES:]

    def text(self) -> str:
        """Return the last of it, once the command has ended."""
        self.join(_GRACE_S)
        return decoded(self._kept).strip()[-_COMPLAINT_CHARACTERS:]

    def finish(self) -> None:
        """Close the stream, if nobody else writes to it any more."""
        self.join(_GRACE_S)
        if not self.is_alive():
            self._stream.close()


class _Pipe:
    """A command whose standard input and output lead to the device; killed when the time is up, or at the end."""

    def __init__(self, command: Sequence[str], seconds: float, device: str, token: str) -> None:
        self._device = device
        self._head = f"{_WORD} {token} ".encode()
        self._late = threading.Event()
        self._spoken = False
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self._stdin.fileno(), False)
        self._deadline = Deadline(seconds)
        self._incoming = _Incoming(self._stdout.fileno(), self._deadline)
        assert self._process.stderr is not None
        self._complaint = _Complaint(self._process.stderr)
        self._complaint.start()
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
        self._complaint.finish()

    def converse(self, envelope: dict[str, Any], sent: Sequence[_File]) -> _Refused | _Ended:
        """Send the agent, the envelope and what is missing of its files; return the last line that it says."""
        source = AGENT.read_bytes()
        self._send(f"{len(source)}\n".encode() + source + json.dumps(envelope).encode() + b"\n")
        reply = self._listen()
        if not isinstance(reply, _Missing):
            return reply
        if len(set(reply.missing)) < len(reply.missing) or max(reply.missing, default=0) >= len(sent):
            raise self._no_answer(f"a request for the files {list(reply.missing[:5])} of {len(sent)}")
        for index in reply.missing:
            with sent[index].path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    if not self._send(chunk):
                        return self._said()  # it stopped taking files, and says why
        return self._said()

    def _said(self) -> _Refused | _Ended:
        reply = self._listen()
        if isinstance(reply, _Missing):
            raise self._no_answer("a second request for files")
        return reply

    def take(self, size: int) -> bytes:
        """Return the next bytes that the agent sends."""
        content = self._incoming.exactly(size)
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
        """Send all of it; return whether somebody takes it."""
        left = memoryview(content)
        while left:
            _, ready, _ = select.select([], [self._stdin], [], self._deadline.left)
            if not ready:
                raise TimeoutError
            try:
                left = left[os.write(self._stdin.fileno(), left[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:
                return False
        return True

    def _listen(self) -> _Reply:
        """Return the agent's next line; what the device's shell prints before it first speaks is passed over."""
        noise = 0
        while line := self._incoming.line(_MOST_NOISE):
            if line.startswith(self._head) and line.endswith(b"\n"):
                self._spoken = True
                try:
                    return _REPLY.validate_json(line[len(self._head) :])
                except ValidationError as error:
                    raise self._no_answer(repr(line[len(self._head) :][:100])) from error
            noise += len(line)
            if self._spoken or noise > _MOST_NOISE:
                raise DeviceError(
                    f"{self._device}: {line[:100]!r} came instead of an answer; does its shell print when it starts?"
                )
        raise self._broken()

    def _no_answer(self, came: str) -> DeviceError:
        return DeviceError(
            f"{self._device}: {came} came where the agent answers: what runs there is not what was sent; measure again"
        )

    def _broken(self) -> Exception:
        status = self._process.wait()
        if self._late.is_set():
            return TimeoutError()
        return PipeBroken(status, self._complaint.text(), self._spoken)

    def _end(self) -> None:
        self._late.set()
        self._process.kill()
