"""A phone for tests: a small daemon that speaks adb's protocol over TCP to the real adb client.

It opens shells (with and without shell protocol 2) and receives and sends files (version 1 of sync). It does not
imitate: authentication and TLS, USB, port forwarding, packet checksums, interactive shells, compressed or version 2
sync, Android itself. Its shell is this machine's ``sh``, and its files are this machine's, so that the phone's folder
must be one of the test's. The programs that time models, too, are scripts: they print what the real ones print.
"""

import contextlib
import errno
import io
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_PATIENCE_S = 30.0
_VERSION = 0x01000001
_MOST = 1 << 18
_MARK = "SEKRON_EDGE_TEST_PHONE"
_STDOUT, _STDERR, _EXIT = 1, 2, 3

# Their outputs are their inputs, for a model that does the same. They take the time that they state.
BENCHMARK_MODEL = """#!/bin/sh
for a in "$@"; do case $a in --graph=*) model=${a#*=} ;; --num_runs=*) runs=${a#*=} ;;
--input_layer_value_files=*) inputs=${a##*:} ;; --output_filepath=*) output=${a#*=} ;;
esac; done
[ -r "$model" ] || exit 1
. ./fault 2>/dev/null
[ -n "$output" ] && cp "$inputs" "$output"
ms=$((${runs:-1} * 9)); sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
echo 'Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.'
echo 'count=61 first=9000 curr=8100 min=8000 max=9000 avg=8100.5 std=90'
echo "count=$runs first=8010 curr=8020 min=7990 max=8040 avg=8020.25 std=12"
echo "Inference timings in us: Init: 2028, First inference: 9000, Warmup (avg): 8100.5, Inference (avg): 8020.25"
case $* in *enable_op_profiling=true*)
echo '============================== Run Order =============================='
printf '\\t[node type]\\t[first]\\t[avg ms]\\t[%%]\\t[cdf%%]\\t[mem KB]\\t[times called]\\t[Name]\\n'
printf '\\tCONV_2D\\t6.1\\t6.001\\t75%%\\t75%%\\t0.0\\t1\\t[conv;relu]:0\\n'
printf '\\tFULLY_CONNECTED\\t2.1\\t2.019\\t25%%\\t100%%\\t0.0\\t1\\t[linear]:1\\n'
echo
esac
echo 'Memory footprint delta from the start of the tool (MB): init=2.5 overall=4.5'
"""

EXECUTOR_RUNNER = """#!/bin/sh
for a in "$@"; do case $a in
--model_path=*) model=${a#*=} ;; --num_executions=*) runs=${a#*=} ;; --inputs=*) inputs=${a#*=} ;;
--output_file=*) output=${a#*=} ;; --etdump_path=*) dump=${a#*=} ;;
esac; done
[ -r "$model" ] || exit 1
. ./fault 2>/dev/null
ms=$((${runs:-1} * 5)); sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))
i=0
while [ $i -lt ${runs:-1} ]; do
i=$((i + 1)); echo "I 00:00:00.1 executor_runner.cpp:1] Iteration $i of $runs: 4.$((i % 10)) ms" >&2
done
runs=${runs:-1}
echo "I 00:00:00.2 executor_runner.cpp:2] Model executed successfully $runs time(s) in $((4 * runs)).5 ms." >&2
[ -n "$output" ] && cp "$inputs" "$output-0.bin"
[ -n "$dump" ] && echo trace >"$dump"
exit 0
"""


class Phone:
    """A phone that ``adb connect`` has found; ``adb:phone`` in the user's file.

    Args:
        folder: Empty; for all that is written.
        shell_2: Whether it offers the shell protocol that keeps status and errors apart.
    """

    def __init__(self, folder: Path, *, shell_2: bool = True) -> None:
        self.folder = folder
        self.above = folder / 'it\'s "work"'
        self.above.mkdir()
        self.work = self.above / "sekron-edge"
        self._features = b"shell_v2,cmd" if shell_2 else b"cmd"
        self._connections: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._socket.getsockname()[1]}"
        for name, text in (("benchmark_model", BENCHMARK_MODEL), ("executor_runner", EXECUTOR_RUNNER)):
            (folder / name).write_text(text)
        self._commands = folder / "bin"
        self._commands.mkdir()
        # A server of the test's own, so that no phone on somebody's desk is touched.
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.environment = {"ANDROID_ADB_SERVER_PORT": str(probe.getsockname()[1])}
        threading.Thread(target=self._accept, daemon=True).start()
        self.plug_in()

    def adb(self, *arguments: str) -> str:
        """Run the client by hand."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(["adb", *arguments], env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def settings(self, fault: str = "", **changes: object) -> dict[str, object]:
        """Return a table of the user's file for this phone, whose programs begin with a line of shell."""
        programs = {}
        for name in ("benchmark_model", "executor_runner"):
            text = (self.folder / name).read_text().replace(". ./fault 2>/dev/null", fault or ":")
            path = self.folder / f"{name} {abs(hash(fault)):x}"
            path.write_text(text)
            programs[name] = str(path)
        return {"host": self.serial, "cache": str(self.above), "binaries": programs, **changes}

    def says(self, thermal: str | None) -> None:
        """Let its thermal service say this; a phone has none that is older than Android 10."""
        command = self._commands / "dumpsys"
        command.unlink(missing_ok=True)
        if thermal is not None:
            command.write_text(f"#!/bin/sh\ncat <<'END'\n{thermal}\nEND\n")
            command.chmod(0o755)

    def plug_in(self) -> None:
        """Let the client find it."""
        end = time.monotonic() + _PATIENCE_S
        while self.adb("-s", self.serial, "get-state").strip() != "device":
            assert time.monotonic() < end, self.adb("devices")
            # Disconnected first: the server may take a connection that was cut for one that lives.
            self.adb("disconnect", self.serial)
            self.adb("connect", self.serial)

    def unplug(self) -> None:
        """Cut the cable: what runs on the phone goes on."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def stop(self) -> None:
        """Switch it off, and the client's server with it."""
        self.adb("kill-server")
        self._socket.close()
        self.unplug()

    def processes(self) -> list[psutil.Process]:
        """Return what the phone runs."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def runs(self, argument: str) -> bool:
        """Say whether the phone runs anything with this argument."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error, OSError):  # it ended meanwhile
                if argument in process.cmdline():
                    return True
        return False

    def wait_for_silence(self) -> None:
        """Wait until the phone runs nothing, and has no file of a job."""
        end = time.monotonic() + _PATIENCE_S
        while (found := self.processes()) or self.work.exists():
            assert time.monotonic() < end, ([process.cmdline() for process in found], list(self.folder.rglob("*")))
            time.sleep(0.05)

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            here: bool = process.environ().get(_MARK) == str(self.folder)
            return here and bool(process.status() != psutil.STATUS_ZOMBIE)
        except (psutil.Error, OSError):
            return False

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Small packets follow each other: none waits until the one before is acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(connection)
            threading.Thread(target=_Link(connection, self._features, self._environment()).serve, daemon=True).start()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, _MARK: str(self.folder), "PATH": f"{self._commands}:{os.environ['PATH']}"}


class _Link:
    """One connection of the client's server, with its streams."""

    def __init__(self, connection: socket.socket, features: bytes, environment: dict[str, str]) -> None:
        self._connection = connection
        self._features = features
        self._environment = environment
        self._lock = threading.Lock()
        self._streams: dict[int, _Stream] = {}
        self._next = 1

    def serve(self) -> None:
        try:
            while True:
                command, first, second, payload = self._receive()
                if command == b"CNXN":
                    banner = b"device::ro.product.name=test;ro.product.model=phone;ro.product.device=test;features="
                    self.send(b"CNXN", _VERSION, _MOST, banner + self._features)
                elif command == b"OPEN":
                    self._open(first, payload.rstrip(b"\0").decode())
                elif second in self._streams:
                    self._streams[second].take(command, payload)
        except OSError:
            for stream in self._streams.values():
                stream.take(b"CLSE", b"")
            self._connection.close()

    def send(self, command: bytes, first: int, second: int, payload: bytes = b"") -> None:
        magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
        head = struct.pack("<4sIIIII", command, first, second, len(payload), 0, magic)
        with self._lock:
            self._connection.sendall(head + payload)

    def _open(self, remote: int, service: str) -> None:
        number, self._next = self._next, self._next + 1
        stream = self._streams[number] = _Stream(self, number, remote)
        work = _shell if service.startswith("shell") else _sync if service.startswith("sync:") else None
        if work is None:
            self.send(b"CLSE", 0, remote)
            return
        self.send(b"OKAY", number, remote)
        threading.Thread(target=_served, args=(work, stream, service, self._environment), daemon=True).start()

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        command, first, second, size, _, _ = struct.unpack("<4sIIIII", self._exactly(24))
        return command, first, second, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            chunk = self._connection.recv(size - len(found))
            if not chunk:
                raise OSError("the cable was cut")
            found += chunk
        return found


class _Stream:
    """One service that the client opened: a pipe whose every packet is acknowledged."""

    def __init__(self, link: _Link, number: int, remote: int) -> None:
        self._link, self._number, self._remote = link, number, remote
        self._changed = threading.Condition()
        self._received = b""
        self._acknowledged = True
        self.closed = False

    def take(self, command: bytes, payload: bytes) -> None:
        with self._changed:
            if command == b"WRTE":
                self._received += payload
                self._link.send(b"OKAY", self._number, self._remote)
            elif command == b"OKAY":
                self._acknowledged = True
            elif command == b"CLSE":
                self.closed = True
            self._changed.notify_all()

    def write(self, payload: bytes) -> None:
        for start in range(0, len(payload), _MOST):
            with self._changed:
                self._changed.wait_for(lambda: self._acknowledged or self.closed)
                if self.closed:
                    raise OSError("the stream was closed")
                self._acknowledged = False
            self._link.send(b"WRTE", self._number, self._remote, payload[start : start + _MOST])

    def read(self, size: int) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: len(self._received) >= size or self.closed)
            if len(self._received) < size:
                raise OSError("the stream was closed")
            found, self._received = self._received[:size], self._received[size:]
        return found

    def close(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._acknowledged or self.closed)
        self._link.send(b"CLSE", self._number, self._remote)


def _served(work: Callable[..., Any], stream: _Stream, service: str, environment: dict[str, str]) -> None:
    with contextlib.suppress(OSError):
        work(stream, service, environment)
        stream.close()


def _shell(stream: _Stream, service: str, environment: dict[str, str]) -> None:
    kind, _, script = service.partition(":")
    apart = "v2" in kind
    process = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
    )  # fmt: skip
    output = process.stdout
    assert isinstance(output, io.BufferedReader)
    with output:  # closed when the client leaves: what still writes is ended by that
        while chunk := output.read1(1 << 16):
            stream.write(struct.pack("<BI", _STDOUT, len(chunk)) + chunk if apart else chunk)
    status = process.wait() & 0xFF
    if apart:
        stream.write(struct.pack("<BIB", _EXIT, 1, status))


def _sync(stream: _Stream, _: str, __: dict[str, str]) -> None:
    while True:
        command, size = struct.unpack("<4sI", stream.read(8))
        path = os.fsdecode(stream.read(size))
        if command == b"QUIT":
            return
        if command == b"STAT":
            mode, length, changed = _stat(path)
            stream.write(struct.pack("<4sIII", b"STAT", mode, length, changed))
        elif command == b"SEND":
            _receive_file(stream, path.rpartition(",")[0])
        elif command == b"RECV":
            _send_file(stream, path)
        else:
            raise OSError(f"{command!r} is not imitated")


def _stat(path: str) -> tuple[int, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0, 0
    return found.st_mode, found.st_size, int(found.st_mtime)


def _receive_file(stream: _Stream, path: str) -> None:
    content, problem = b"", ""
    while True:
        command, size = struct.unpack("<4sI", stream.read(8))
        if command == b"DONE":
            break
        content += stream.read(size)
    try:
        if _is_full(path, len(content)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        Path(path).write_bytes(content)
    except OSError as error:
        problem = error.strerror or ""
    answer = b"FAIL" if problem else b"OKAY"
    stream.write(struct.pack("<4sI", answer, len(problem)) + problem.encode())


def _is_full(path: str, size: int) -> bool:
    """Say whether the phone's disk, which a file beside the job's folder limits, is full."""
    limit = Path(path).parents[1] / "limit"
    return limit.exists() and size > int(limit.read_text())


def _send_file(stream: _Stream, path: str) -> None:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        problem = (error.strerror or "").encode()
        stream.write(struct.pack("<4sI", b"FAIL", len(problem)) + problem)
        return
    for start in range(0, len(content), 1 << 16):
        chunk = content[start : start + (1 << 16)]
        stream.write(struct.pack("<4sI", b"DATA", len(chunk)) + chunk)
    stream.write(struct.pack("<4sI", b"DONE", 0))
