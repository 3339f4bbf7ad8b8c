"""A folder of one request on an Android device: what is sent there, launched, and read of what was printed."""

from __future__ import annotations

import math
import shlex
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact
from sekron_edge.errors import DeviceError
from sekron_edge.measurement._protocol import MeasurementRequest, Timing, pieces
from sekron_edge.measurement.transports._adb_client import Adb, shown
from sekron_edge.measurement.transports._android_tools import AndroidTool

_SIGNALLED = 128
_KILLED = _SIGNALLED + signal.SIGKILL
_STATUSES = {
    126: "it cannot be executed there; is it for another processor?",
    127: "it, or a library of it, is not there; is it for another processor?",
}
_NEXT = "sekron-edge-next"
_MOST_TRACED = 1 << 28


@dataclass(frozen=True)
class Workspace:
    """A folder there for one request, and the program that times its artifacts.

    Attributes:
        adb: The device.
        folder: Of the request, there.
        tool: The program.
        program: Where it is, here.
        request: What is to be done.
        cores: That the program is bound to; as the system likes if empty.
    """

    adb: Adb
    folder: str
    tool: AndroidTool
    program: Path
    request: MeasurementRequest
    cores: Sequence[int]

    def measure(self, index: int, traces: Path | None) -> tuple[Timing, tuple[Array, ...]]:
        """Time one of the request's artifacts; return its outputs, too, where the program writes them.

        Args:
            index: Of the artifact.
            traces: Folder here for the program's trace, if that is wanted.
        """
        request, artifact = self.request, self.request.artifacts[index]
        model = f"{index}{artifact.path.suffix}"
        self._send_program()
        self.adb.push([artifact.path], f"{self.folder}/{model}")
        inputs = self._send_inputs(index)
        outputs = self._outputs(artifact, model, inputs) if request.wants_outputs else ()
        given = self.tool.given(artifact, inputs[0]) if inputs else []
        given += [f"--etdump_path={index}.etdump"] if traces is not None else []
        launches = self.tool.launches(model, request)
        printed = [self._run(artifact, [*arguments, *given]) for arguments in launches]
        profiled = request.conditions.operators and self.tool.profile
        profile = [*launches[-1], *self.tool.profile, *given]
        table = self._run(artifact, profile) if profiled else None
        if traces is not None:
            target = traces.expanduser()
            target.mkdir(parents=True, exist_ok=True)
            self.adb.pull(f"{self.folder}/{index}.etdump", target / f"{artifact.path.stem}.etdump", most=_MOST_TRACED)
        return self._timing(artifact, printed, table), outputs

    def time_in_turn(self) -> list[Timing]:
        """Time all of the request's artifacts, which may be hundreds: the program's launches for each take turns."""
        artifacts = self.request.artifacts
        self._send_program()
        with tempfile.TemporaryDirectory() as local:
            models = [Path(local) / f"{index}{artifact.path.suffix}" for index, artifact in enumerate(artifacts)]
            for model, artifact in zip(models, artifacts, strict=True):
                model.symlink_to(artifact.path.resolve())
            self.adb.push(models, self.folder)
        launches = [self.tool.launches(model.name, self.request) for model in models]
        rounds = [self._run_all(arguments) for arguments in zip(*launches, strict=True)]
        return [self._timing(*one) for one in zip(artifacts, zip(*rounds, strict=True), strict=True)]

    def _run_all(self, launches: Sequence[Sequence[str]]) -> list[str]:
        """Run the program with each of these arguments by one script there; return what it printed each time."""
        lines = [f"echo {_NEXT}; ./{self.tool.name} {shlex.join(arguments)} || exit" for arguments in launches]
        with tempfile.TemporaryDirectory() as local:
            script = Path(local) / "round"
            script.write_text("\n".join([*lines, ""]))
            self.adb.push([script], f"{self.folder}/{script.name}")
        status, printed = self._launch(f"sh {script.name}")
        _, *each = printed.split(f"{_NEXT}\n")
        last = self.request.artifacts[min(max(0, len(each) - 1), len(launches) - 1)]
        self._require_end(last, status, printed)
        if len(each) != len(launches):
            raise DeviceError(f"{self.adb.device}: {len(each)} launches were seen where {len(launches)} were asked for")
        return each

    def _timing(self, artifact: Artifact, printed: Sequence[str], table: str | None = None) -> Timing:
        """Understand what the launches printed, and the table of operators, if there is one.

        Raises:
            DeviceError: If it is nothing that the program prints.
        """
        try:
            return self._understood(printed, table)
        except DeviceError as error:
            raise DeviceError(f"{self.adb.device}: {artifact.path.name}: {error}") from error
        except (ValueError, OverflowError) as error:  # numbers of a million digits, and what records refuse
            raise DeviceError(
                f"{self.adb.device}: {artifact.path.name}: {self.tool.not_understood(printed[-1])}"
            ) from error

    def _understood(self, printed: Sequence[str], table: str | None) -> Timing:
        read = self.tool.read(printed, self.request)
        return Timing(
            runtime=self.tool.runtime,
            runtime_version=f"{self.tool.name} {files.sha256(self.program)[:12]}",
            timed="computation",  # both programs hand the inputs over before they look at the clock
            measurable=True,
            settled=True,
            milliseconds=read.milliseconds,
            averaged=read.averaged,
            peak_memory_bytes=read.peak_memory_bytes,
            operators=() if table is None else self.tool.operators(table),
        )

    def _send_program(self) -> None:
        self.adb.push([self.program], f"{self.folder}/{self.tool.name}")
        self.adb.require(f"chmod 755 {shlex.quote(f'{self.folder}/{self.tool.name}')}")

    def _send_inputs(self, index: int) -> list[list[str]]:
        """Send each batch of each input as a file of raw values; return their names, batch by batch."""
        if self.request.inputs is None:
            return []
        arrays = pieces(self.request.artifacts[index], self.request.inputs).values()
        batches = []
        with tempfile.TemporaryDirectory() as local:
            for batch, values in enumerate(zip(*arrays, strict=True)):
                names = [f"{index}-{batch}-{number}.in" for number in range(len(values))]
                for name, value in zip(names, values, strict=True):
                    value.tofile(Path(local) / name)
                    self.adb.push([Path(local) / name], f"{self.folder}/{name}")
                batches.append(names)
        return batches

    def _outputs(self, artifact: Artifact, model: str, inputs: Sequence[Sequence[str]]) -> tuple[Array, ...]:
        """Run every batch once, and fetch what comes out, in PyTorch's layout; nothing if nothing is written."""
        outputs: list[list[Array]] = [[] for _ in artifact.outputs]
        names = self.tool.answers(len(artifact.outputs))
        for batch in inputs:
            self._run(artifact, [*self.tool.answering(model), *self.tool.given(artifact, batch)])
            if self.adb.shell(f"cd {shlex.quote(self.folder)} && ls {' '.join(names)}")[0]:
                return ()
            sizes = [math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in artifact.outputs]
            content = self._fetched(names, sum(sizes))
            if len(content) != sum(sizes):
                raise DeviceError(
                    f"{self.adb.device}: {artifact.path.name} gave {len(content)} bytes for outputs of {sum(sizes)}; "
                    "is the file damaged?"
                )
            for spec, size, batches in zip(artifact.outputs, sizes, outputs, strict=True):
                batches.append(np.frombuffer(content[:size], spec.dtype).reshape(spec.shape))
                content = content[size:]
        return tuple(
            spec.to_torch(np.concatenate(values)) for spec, values in zip(artifact.outputs, outputs, strict=True)
        )

    def _fetched(self, names: Sequence[str], most: int) -> bytes:
        """Fetch files of at most so many bytes each; return them one behind the other."""
        with tempfile.TemporaryDirectory() as local:
            path = Path(local) / "fetched"
            contents = []
            for name in names:
                self.adb.pull(f"{self.folder}/{name}", path, most=most)
                contents.append(path.read_bytes())
        self.adb.require(f"cd {shlex.quote(self.folder)} && rm {' '.join(names)}")  # the next are the next batch's
        return b"".join(contents)

    def _run(self, artifact: Artifact, arguments: Sequence[str]) -> str:
        status, printed = self._launch(f"./{self.tool.name} {shlex.join(arguments)}")
        self._require_end(artifact, status, printed)
        return printed

    def _launch(self, command: str) -> tuple[int, str]:
        """Run a command there; return its status and what it printed."""
        seconds = max(1, int(self.adb.deadline.left))
        # In a process group of its own, which nothing outlives.
        pin = f"taskset {sum(1 << core for core in self.cores):x} " if self.cores else ""
        launch = f"echo $$ > group; exec timeout -s KILL {seconds} {pin}{command}"
        return self.adb.shell(
            f"cd {shlex.quote(self.folder)} && {{ setsid sh -c {shlex.quote(launch)}; status=$?; "
            "kill -9 -$(cat group) 2>/dev/null; (exit $status); }"
        )

    def _require_end(self, artifact: Artifact, status: int, printed: str) -> None:
        """Refuse a program that did not come to its end.

        Raises:
            DeviceError: If it failed, or time is up.
        """
        if not status:
            return
        if status == _KILLED and self.adb.deadline.left < 1:
            raise self.adb.missed()
        raise DeviceError(
            f"{self.adb.device}: measuring {artifact.path.name} with {self.tool.name} failed: "
            f"{self._reason(status)}\n{shown(printed)}"
        )

    def _reason(self, status: int) -> str:
        if status in _STATUSES:
            return _STATUSES[status]
        if status > _SIGNALLED:
            with suppress(ValueError):
                name = signal.Signals(status - _SIGNALLED).name
                return f"it ended with {name}; {'is there enough memory?' if name == 'SIGKILL' else 'is it damaged?'}"
        return f"status {status}; is the file damaged, or the program older than the exporter?"
