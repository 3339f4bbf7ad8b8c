"""Android devices over adb: LiteRT's and ExecuTorch's own programs, on the big cores, when the device is cool.

A folder there holds one job. It is removed at the end; should the connection break, a guard that was left there kills
what runs and removes it when the time is up.
"""

from __future__ import annotations

import re
import shlex
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact
from sekron_edge.devices import _hostinfo
from sekron_edge.devices._adb_client import Adb
from sekron_edge.devices._android_tools import TOOLS, Tool, read_operators
from sekron_edge.devices._connections import Connection
from sekron_edge.devices._device import Deadline, Device
from sekron_edge.devices._hostinfo import HostInfo
from sekron_edge.devices._job import Answer, Job, Outcome, Timing, pieces, require_possible
from sekron_edge.errors import DeviceError, UnreachableError, UnsupportedError

_ABOVE = "/data/local/tmp"
_NAME = "sekron-edge"  # what has this name there is ours to remove
_COOLING_POLL_S = 5.0
_CLEANING_S = 5.0
_BUSY = 75
_SIGNALLED = 128
_KILLED = _SIGNALLED + signal.SIGKILL
_STATUSES = {
    126: "it cannot be executed there; is it for another processor?",
    127: "it, or a library of it, is not there; is it for another processor?",
}


class AdbDevice(Device):
    """An Android device with USB debugging, or any other that the adb client reaches.

    Args:
        alias: Its name in the user's file, or its serial number.
        connection: How it is reached, and where the programs are that time artifacts.
    """

    def __init__(self, alias: str, connection: Connection) -> None:
        self.name = f"adb:{alias}"
        self.emulated = connection.emulated
        self._connection = connection
        self._serial = connection.host or alias

    def _carry(self, job: Job, timeout_s: float) -> Outcome:
        tools = [self._tool(artifact, job) for artifact in job.artifacts]
        deadline = Deadline(timeout_s)
        adb = Adb(self._serial, self.name, deadline, lambda: deadline.missed(self.name, job))
        folder = f"{self._connection.cache or _ABOVE}/{_NAME}"
        with _folder(adb, folder):
            before = self._cooled(adb)
            cores = job.affinity or HostInfo(before).big_cores
            started = time.monotonic()
            measured = [
                _Run(adb, folder, tool, program, artifact, job, cores).measure(index, traced=self._traces(artifact))
                for index, (artifact, (tool, program)) in enumerate(zip(job.artifacts, tools, strict=True))
            ]
            elapsed = time.monotonic() - started
            self._fetch_traces(adb, folder, job)
            after = _texts(adb)
            machine, system = adb.require("uname -m; uname -sr").split("\n", maxsplit=2)[:2]
        answer = Answer(
            token=job.token,
            machine=machine,
            system=system,
            python=None,
            cores=before[_hostinfo.CPUINFO].count("processor\t") or None,
            affinity=None,
            pinned=cores,
            elapsed_s=elapsed,
            before=before,
            after=after,
            timings=tuple(timing for timing, _ in measured),
        )
        require_possible(job, answer, seconds=elapsed, device=self.name)
        return Outcome(answer, tuple(outputs for _, outputs in measured))

    def _tool(self, artifact: Artifact, job: Job) -> tuple[Tool, Path]:
        tool = TOOLS.get(artifact.format)
        if tool is None:
            raise UnsupportedError(
                f"{self.name}: {artifact.path.name} cannot be measured over adb, where {', '.join(TOOLS)} can"
            )
        if job.timed == "computation":
            raise UnsupportedError(
                f"{self.name}: {tool.name} times whole calls alone: nothing can be calibrated over adb"
            )
        program = self._connection.binaries.get(tool.name)
        if program is None or not program.expanduser().is_file():
            raise DeviceError(
                f"{self.name}: {tool.name} is needed, and is not at {program}: name its path in devices.toml, as "
                f'binaries = {{ {tool.name} = "..." }}; docs/measuring.md says where to get it'
            )
        return tool, program.expanduser()

    def _cooled(self, adb: Adb) -> dict[str, str]:
        """Wait until the device is cool enough, if that was asked for; return its texts."""
        limit = self._connection.cool_celsius
        while True:
            found = _texts(adb)
            temperature = HostInfo(found).temperature_celsius
            if limit is None or temperature is None or temperature <= limit:
                return found
            if adb.deadline.left < adb.deadline.seconds / 2:
                raise DeviceError(
                    f"{self.name}: it is still at {temperature:g} °C after {adb.deadline.passed:.0f} s, and was to be "
                    f"no hotter than {limit:g}; let it cool, or raise cool_celsius"
                )
            time.sleep(min(_COOLING_POLL_S, adb.deadline.seconds / 10))

    def _traces(self, artifact: Artifact) -> bool:
        return self._connection.etdump is not None and TOOLS[artifact.format].name == "executor_runner"

    def _fetch_traces(self, adb: Adb, folder: str, job: Job) -> None:
        for index, artifact in enumerate(job.artifacts):
            if self._traces(artifact):
                assert self._connection.etdump is not None
                target = self._connection.etdump.expanduser()
                target.mkdir(parents=True, exist_ok=True)
                adb.pull(f"{folder}/{index}.etdump", target / f"{artifact.path.stem}.etdump")


class _Run:
    """One artifact in the program that times it."""

    def __init__(
        self, adb: Adb, folder: str, tool: Tool, program: Path, artifact: Artifact, job: Job, cores: Sequence[int]
    ) -> None:
        self._adb = adb
        self._folder = folder
        self._tool = tool
        self._program = program
        self._artifact = artifact
        self._job = job
        self._pin = f"taskset {sum(1 << core for core in cores):x} " if cores else ""

    def measure(self, index: int, *, traced: bool) -> tuple[Timing, tuple[Array, ...]]:
        """Send what is needed, check outputs where the program writes them, and time."""
        job = self._job
        model = f"{index}{self._artifact.path.suffix}"
        self._adb.push(self._program, f"{self._folder}/{self._tool.name}")
        self._adb.push(self._artifact.path, f"{self._folder}/{model}")
        self._adb.require(f"chmod 755 {shlex.quote(f'{self._folder}/{self._tool.name}')}")
        inputs = self._send_inputs(index)
        outputs = self._outputs(model, inputs) if job.answered and self._tool.answers else ()
        given = [f"--inputs={','.join(inputs[0])}"] if inputs and self._tool.answers else []
        given += [f"--etdump_path={index}.etdump"] if traced else []
        launches = self._tool.launches(model, runs=job.runs, warmup=job.warmup, threads=job.threads)
        printed = [self._launch([*arguments, *given]) for arguments in launches]
        try:
            read = self._tool.read(printed, runs=job.runs, warmup=job.warmup)
        except DeviceError as error:
            raise DeviceError(f"{self._adb.device}: {self._artifact.path.name}: {error}") from error
        profiled = job.operators and self._tool.profile
        operators = read_operators(self._launch([*launches[-1], *self._tool.profile, *given])) if profiled else ()
        timing = Timing(
            runtime=self._tool.runtime,
            runtime_version=f"{self._tool.name} {files.sha256(self._program)[:12]}",
            measurable=True,
            settled=True,
            milliseconds=read.milliseconds,
            averaged=read.averaged,
            peak_memory_bytes=read.peak_memory_bytes,
            operators=operators,
        )
        return timing, outputs

    def _send_inputs(self, index: int) -> list[list[str]]:
        """Send each batch of each input as a file of raw values; return their names, batch by batch."""
        if self._job.inputs is None or not self._tool.answers:
            return []
        arrays = pieces(self._artifact, self._job.inputs).values()
        batches = []
        with tempfile.TemporaryDirectory() as local:
            for batch, values in enumerate(zip(*arrays, strict=True)):
                names = [f"{index}-{batch}-{number}.in" for number in range(len(values))]
                for name, value in zip(names, values, strict=True):
                    value.tofile(Path(local) / name)
                    self._adb.push(Path(local) / name, f"{self._folder}/{name}")
                batches.append(names)
        return batches

    def _outputs(self, model: str, inputs: Sequence[Sequence[str]]) -> tuple[Array, ...]:
        """Run every batch once, and fetch what comes out, in PyTorch's layout."""
        found: list[list[Array]] = [[] for _ in self._artifact.outputs]
        with tempfile.TemporaryDirectory() as local:
            path = Path(local) / "output"
            for names in inputs:
                self._launch([f"--model_path={model}", f"--inputs={','.join(names)}", "--output_file=out"])
                for number, (spec, batches) in enumerate(zip(self._artifact.outputs, found, strict=True)):
                    self._adb.pull(f"{self._folder}/out-{number}.bin", path)
                    values = np.fromfile(path, spec.dtype)
                    if values.size != np.prod(spec.shape):
                        raise DeviceError(
                            f"{self._adb.device}: {self._artifact.path.name} gave {values.size} values for an output "
                            f"of shape {spec.shape}; is the file damaged?"
                        )
                    batches.append(values.reshape(spec.shape))
        return tuple(
            spec.to_torch(np.concatenate(values)) for spec, values in zip(self._artifact.outputs, found, strict=True)
        )

    def _launch(self, arguments: Sequence[str]) -> str:
        """Run the program once, and return what it printed."""
        seconds = max(1, int(self._adb.deadline.left))
        # In a process group of its own, which nothing outlives.
        launch = (
            f"echo $$ > group; exec timeout -s KILL {seconds} {self._pin}./{self._tool.name} {shlex.join(arguments)}"
        )
        status, printed = self._adb.shell(
            f"cd {shlex.quote(self._folder)} && {{ setsid sh -c {shlex.quote(launch)}; status=$?; "
            "kill -9 -$(cat group) 2>/dev/null; (exit $status); }"
        )
        if not status:
            return printed
        if status == _KILLED and self._adb.deadline.left < 1:
            raise self._adb.missed()
        raise DeviceError(
            f"{self._adb.device}: measuring {self._artifact.path.name} with {self._tool.name} failed: "
            f"{self._reason(status)}\n{printed.strip()[-800:]}"
        )

    def _reason(self, status: int) -> str:
        if status in _STATUSES:
            return _STATUSES[status]
        if status > _SIGNALLED:
            with suppress(ValueError):
                name = signal.Signals(status - _SIGNALLED).name
                return f"it ended with {name}; {'is there enough memory?' if name == 'SIGKILL' else 'is it damaged?'}"
        return f"status {status}; is the file damaged, or the program older than the exporter?"


@contextmanager
def _folder(adb: Adb, folder: str) -> Iterator[None]:
    """Make the folder of a job, with a guard that ends it should nobody come back; both go at the end.

    Raises:
        UnreachableError: If another job's guard is there.
    """
    quoted = shlex.quote(folder)
    end = f"kill -9 -$(cat {quoted}/group); rm -rf {quoted}"
    guard = f"sleep {round(adb.deadline.seconds + _CLEANING_S)}; {end}"
    status, printed = adb.shell(
        f"(mkdir {quoted} 2>/dev/null || {{ kill -0 $(cat {quoted}/guard) 2>/dev/null && exit {_BUSY}; "
        f"rm -rf {quoted}; mkdir {quoted}; }} && cd {quoted} && "
        f"{{ setsid sh -c {shlex.quote(guard)} >/dev/null 2>&1 </dev/null & echo $! > guard; }})"
    )
    if status == _BUSY:
        raise UnreachableError(f"{adb.device}: another measurement runs there")
    if status:
        raise DeviceError(f"{adb.device}: a folder for the job cannot be made there: {printed.strip()}")
    try:
        yield
    finally:
        last = Adb(adb.serial, adb.device, Deadline(_CLEANING_S), adb.missed)
        with suppress(DeviceError):  # the device has gone: its guard cleans up
            last.shell(f"kill -9 -$(cat {quoted}/guard); {end}")


def _texts(adb: Adb) -> dict[str, str]:
    """Read the small files that say how the device is."""
    mark = "sekron-edge-file:"
    script = f'for f in {" ".join(_hostinfo.READ)}; do [ -r "$f" ] && echo "{mark}$f" && cat "$f"; done; true'
    found: dict[str, str] = {}
    for block in adb.require(script).split(mark)[1:]:
        path, _, text = block.partition("\n")
        found[path] = text.strip("\0 \n")
    found.setdefault(_hostinfo.CPUINFO, "")
    return _named(adb, found)


def _named(adb: Adb, found: dict[str, str]) -> dict[str, str]:
    """Let a device that has no name among its files have the one among its properties."""
    if HostInfo(found).cpu_model is None:
        status, said = adb.shell("getprop ro.product.manufacturer && getprop ro.product.model && getprop ro.soc.model")
        if not status:
            found[_hostinfo.BOARD] = re.sub(r"\s+", " ", said).strip()
    return found
