"""The agent: takes files at the device's end of a pipe, has the runner measure there, and leaves no trace.

It travels as this one file, which needs Python 3.8 alone, and lives as long as the pipe: when that breaks, or time is
up, the runner's whole process group is killed and its folder removed. The other end is
`sekron_edge.measurement.transports._pipe`.

Every line of it begins with the word and the token of the request. Files that are ``kept`` lie in a cache by their
hash and are sent once. What a run brought stays only if the other end says at last that all was well.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import runpy
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

_LEAST_PYTHON = (3, 8)
_WORD = "sekron-edge"
_KEEP = b"keep\n"
_CHUNK = 1 << 16
_MOST_OUTPUT = 1 << 26
_OLD_S = 30 * 86_400
# Names of ours: nothing else in the folder is ever touched.
_JOB = "sekron-edge-job-"
_BLOB = "sekron-edge-file-"
_GRACE_S = 5.0
_POLL_S = 0.02
_PATIENCE_S = 1.0


class Refused(Exception):  # noqa: N818 - it becomes an error at the other end
    """What cannot be done, and whether trying again may help."""

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class Gone(Exception):  # noqa: N818
    """The other end has gone, or nothing more is expected of it."""


class Cache:
    """A folder of files by hash, and of the folder of the job that runs. One agent holds it at a time."""

    def __init__(self, path: str) -> None:
        self._made = _make_folders(path)
        self.path = path
        self._brought: set[str] = set()
        self._lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Refused("another measurement runs there", transient=True) from error
        try:
            self._sweep()
            self.folder = tempfile.mkdtemp(prefix=_JOB, dir=path)
        except OSError:
            _remove_folders(self._made)
            raise

    def _sweep(self) -> None:
        """Remove what agents left that were killed, and what nobody has used for long."""
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if name.startswith(_JOB):
                shutil.rmtree(path, ignore_errors=True)
            elif name.startswith(_BLOB) and time.time() - os.path.getmtime(path) > _OLD_S:
                os.remove(path)

    def has(self, file: dict[str, Any]) -> bool:
        """Say whether a file is here; if so, it is used again, and so young."""
        here = file["kept"] and os.path.exists(self._blob(file))
        if here:
            os.utime(self._blob(file))
        return bool(here)

    def take(self, file: dict[str, Any]) -> None:
        """Take a file from the pipe. It arrives in the job's folder, so that no part of it can be left."""
        path = os.path.join(self.folder, file["name"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        digest, left = hashlib.sha256(), file["size"]
        with open(path, "wb") as stream:
            while left:
                chunk = sys.stdin.buffer.read(min(left, _CHUNK))
                if not chunk:
                    raise Gone
                stream.write(chunk)
                digest.update(chunk)
                left -= len(chunk)
        if digest.hexdigest() != file["sha256"]:
            raise Refused("what arrived of {} is not what was sent".format(file["name"]), transient=True)
        if file["kept"]:
            os.replace(path, self._blob(file))
            self._brought.add(self._blob(file))

    def place(self, file: dict[str, Any]) -> None:
        """Let the job's folder show a file that is kept, under its name."""
        if file["kept"]:
            path = os.path.join(self.folder, file["name"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(self._blob(file), path)

    def close(self, *, well: bool) -> None:
        """Remove the job's folder, and, unless all went well, whatever this run brought."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if not well:
            for path in self._brought:
                os.remove(path)
            _remove_folders(self._made)
        os.close(self._lock)

    def _blob(self, file: dict[str, Any]) -> str:
        return os.path.join(self.path, _BLOB + file["sha256"])


def serve(request: dict[str, Any]) -> None:
    """Take the files of a request, run it, answer, and keep what was brought if that is wanted."""
    if sys.version_info < _LEAST_PYTHON:
        raise Refused("its Python is {}.{}, and must be 3.8 or later".format(*sys.version_info))
    cache = Cache(os.path.expanduser(request["cache"]))
    well = False
    try:
        missing = [index for index, file in enumerate(request["files"]) if not cache.has(file)]
        _say(request, {"missing": missing})
        for index in missing:
            cache.take(request["files"][index])
        for file in request["files"]:
            cache.place(file)
        status, stdout, stderr = _run(request, cache.folder)
        collected = [_read(os.path.join(cache.folder, name)) for name in request["collect"]]
        sizes = [None if content is None else len(content) for content in collected]
        head = {"status": status, "stdout": len(stdout), "stderr": len(stderr), "collected": sizes}
        _say(request, head)
        for content in (stdout, stderr, *collected):
            _write(content or b"")
        well = sys.stdin.buffer.readline() == _KEEP
    finally:
        cache.close(well=well)


def _run(request: dict[str, Any], folder: str) -> tuple[int, bytes, bytes]:
    """Run the runner in a process group of its own; return its status, and what it printed."""
    stdout, stderr = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_runner(request, folder, stdout[1], stderr[1])
    os.close(stdout[1])
    os.close(stderr[1])
    texts: dict[int, bytearray] = {stdout[0]: bytearray(), stderr[0]: bytearray()}
    status = None
    try:
        status = _listen(pid, texts)
    finally:
        _kill(pid)
        if status is None:
            os.waitpid(pid, 0)
        for end in texts:
            os.close(end)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, bytes(texts[stdout[0]]), bytes(texts[stderr[0]])


def _listen(pid: int, texts: dict[int, bytearray]) -> int:
    """Collect what a process prints until it ends, whoever else may hold its pipes; return its status."""
    open_ends = set(texts)
    while True:
        ready = select.select([*open_ends, 0], [], [], _PATIENCE_S if open_ends else _POLL_S)[0]
        if 0 in ready:
            raise Gone  # nothing is sent any more: it is the end of the pipe
        for end in ready:
            chunk = os.read(end, _CHUNK)
            texts[end] += chunk
            if not chunk:
                open_ends.discard(end)
            if len(texts[end]) > _MOST_OUTPUT:
                raise Refused("the runner printed more than an answer can be")
        if not ready or not open_ends:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status


def _become_runner(request: dict[str, Any], folder: str, stdout: int, stderr: int) -> None:
    """Turn a child into the runner. It goes on as it is, since what emulates this program would not emulate another."""
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.closerange(3, 256)
        os.chdir(folder)
        os.environ.update(request["environment"], TMPDIR=folder, PYTHONDONTWRITEBYTECODE="1")
        if sys.platform == "darwin":  # whose frameworks do not survive a fork
            os.execv(sys.executable, [sys.executable, request["runner"], request["job"]])  # noqa: S606
        sys.dont_write_bytecode = True
        sys.argv = [request["runner"], request["job"]]
        runpy.run_path(request["runner"], run_name="__main__")
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(1)


def _kill(pid: int) -> None:
    """Kill a process, and its group, which it may not have made yet."""
    for kill in (os.kill, os.killpg):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:
            continue


def _make_folders(path: str) -> list[str]:
    """Make a folder and those above it; return the new ones, the innermost first."""
    made: list[str] = []
    above = path
    while not os.path.isdir(above):
        made.append(above)
        above = os.path.dirname(above)
    os.makedirs(path, exist_ok=True)
    return made


def _remove_folders(paths: list[str]) -> None:
    """Remove folders, the innermost first, as long as they are empty."""
    for path in paths:
        try:
            os.rmdir(path)
        except OSError:
            return


def _read(path: str) -> Any:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return None


def _say(request: dict[str, Any], what: dict[str, Any]) -> None:
    _write("{} {} {}\n".format(_WORD, request["token"], json.dumps(what)).encode())


def _write(content: bytes) -> None:
    try:
        while content:
            content = content[os.write(1, content) :]
    except BrokenPipeError as error:
        raise Gone from error


class Ending:
    """Turns signals into the end of the pipe, which everything here waits for: nothing is cut off in between."""

    def __init__(self, seconds: float) -> None:
        self.late = False
        for number in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, lambda *_: self._end(0))
        signal.signal(signal.SIGALRM, lambda *_: self._time_is_up())
        signal.setitimer(signal.ITIMER_REAL, max(seconds, _POLL_S), _GRACE_S)

    def _time_is_up(self) -> None:
        # The first time there is somebody to tell; after that nobody may be reading any more.
        self._end(1 if self.late else 0)
        self.late = True

    def _end(self, descriptor: int) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, descriptor)
        os.close(nothing)


def main() -> None:
    """Serve one request of the pipe."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    request = json.loads(sys.stdin.buffer.readline())
    ending = Ending(request["timeout_s"])
    refusal = {}
    try:
        serve(request)
    except Gone:
        refusal = {"refused": "time is up", "transient": False} if ending.late else {}
    except Refused as error:
        refusal = {"refused": str(error), "transient": error.transient}
    except OSError as error:
        full = "; free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        refusal = {"refused": f"{error}{full}", "transient": False}
    try:
        if refusal:
            _say(request, refusal)
    except Gone:
        return


main()
