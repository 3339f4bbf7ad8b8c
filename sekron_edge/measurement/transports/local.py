"""This machine as a device: the runner in a process of its own.

What it holds is then the model's, and a crash of a runtime is an error and not the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from sekron_edge import contained, files
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import RUNNER, Device
from sekron_edge.measurement._hostinfo import this_machine
from sekron_edge.measurement._loading import loader_here
from sekron_edge.measurement._protocol import (
    REQUEST_NAME,
    MeasurementRequest,
    Outcome,
    read_answer,
    read_outputs,
    require_end,
)
from sekron_edge.measurement._transports import DeviceSettings, Transport
from sekron_edge.measurement.on_device import matrix_unit


class LocalDevice(Device):
    """This machine."""

    name = "local"

    def launcher(self, request: MeasurementRequest) -> list[str]:
        """Return a program, with arguments, that turns into the runner when it has made its process fit for it."""
        del request
        return []

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        """Run the runner in a process group of its own, which is killed at the end; see `Device.carry_out`."""
        deadline = Deadline.of(request)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths = [str(artifact.path.resolve()) for artifact in request.artifacts]
            loader = loader_here(request.artifacts[0].format, device=self.name, names=request.names)
            answers = request.write(folder, paths, loader)
            # -P: the folder of the runner, which is not the runner's to import from, stays out of its path.
            command = [*self.launcher(request), sys.executable, "-P", str(RUNNER), REQUEST_NAME]
            status, stdout, stderr = _run(command, folder, {**os.environ, **request.environment}, deadline)
            if status is None:
                raise deadline.missed(self.name, request)
            require_end(request, status, stderr, self.name)
            answer = read_answer(request, stdout, seconds=deadline.passed, device=self.name)
            pairs = zip(request.artifacts, answers, strict=False)
            outputs = tuple(read_outputs(artifact, folder / file, self.name) for artifact, file in pairs)
        return Outcome(answer, outputs)


class VectorUnits(LocalDevice):
    """This machine, its runtimes kept from the matrix unit."""

    def __init__(self) -> None:
        self.name = f"{this_machine().cpu_model} without AMX"

    def launcher(self, request: MeasurementRequest) -> list[str]:
        """Return the program that refuses the matrix unit."""
        del request
        return [sys.executable, "-P", matrix_unit.__file__]


class Contained(LocalDevice):
    """This machine, for artifacts of others: whatever they do to a runtime, it has little memory and no network."""

    def launcher(self, request: MeasurementRequest) -> list[str]:
        """Return the program that limits what the runner may use."""
        return contained.launcher(max(files.size_bytes(artifact.path) for artifact in request.artifacts))


def comparable_device() -> VectorUnits | None:
    """Return what of this machine resembles phones and boards; None where that is all of it."""
    return VectorUnits() if this_machine().matrix_unit else None


def _run(
    command: list[str], folder: Path, environment: dict[str, str], deadline: Deadline
) -> tuple[int | None, bytes, bytes]:
    """Run a command that leaves no process; return its status, None if time was up, and what it printed."""
    with (folder / "stdout").open("w+b") as stdout, (folder / "stderr").open("w+b") as stderr:
        # Files, not pipes: those a child of the runner would hold open.
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=environment, cwd=folder, start_new_session=True
        )
        status: int | None = None
        try:
            status = process.wait(deadline.left)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stdout.seek(0)
        stderr.seek(0)
        return status, stdout.read(), stderr.read()


# Who opens a device by its name brings files, whoever made them; jobs measure their own on a `LocalDevice`.
TRANSPORT = Transport("local", DeviceSettings, lambda _name, _settings: Contained(), named=False)
