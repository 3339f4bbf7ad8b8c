"""What the runner is asked, and what it answers: the same for this machine and for devices."""

from __future__ import annotations

import json
import math
import secrets
import signal
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, batch_and_total, whole_batches
from sekron_edge.errors import DeviceError, UnsupportedError
from sekron_edge.measurement import _hostinfo, _load
from sekron_edge.measurement._conditions import DEFAULT_CONDITIONS, Conditions
from sekron_edge.measurement._foreign import Plain, PlainText, decoded, plain
from sekron_edge.measurement._loading import Loader
from sekron_edge.measurement._records import ComputeUnits, OperatorTime, Timed

REQUEST_NAME = "request.json"
# What a sum of durations may exceed the time by that passed meanwhile on this machine's clock.
_CLOCK_TOLERANCE = 1.1
_SHOWN_CHARACTERS = 1500
# Of outputs in a file: the widest values, and the file's own bytes.
_MOST_BYTES_A_VALUE, _BESIDE_VALUES = 8, 1 << 20
_REMEDIES = {
    "job": "give inputs of the shapes that the artifact was exported for",
    "affinity": "choose other cores, or none",
    "format": "measure it elsewhere",
    "exporter": "or measure it on a device, where its device_runtime is all that it takes",
    "runtime": "install the runtime there, for the Python that is used",
    "load": "is the file damaged, or the runtime older than the exporter?",
    "run": "does the model fit the device's memory?",
}


@dataclass(frozen=True)
class MeasurementRequest:
    """Artifacts to measure in turn, so that all of them see the same moods of the machine.

    A ``call`` hands inputs over and fetches outputs; of a ``computation`` neither is timed, where the runtime can do
    without: a run is the mean of two then, right after the others' and right after its own.

    Attributes:
        artifacts: Of one format.
        conditions: How they are measured.
        inputs: Arrays in PyTorch's layout, any number of batches; random values if None. The first batch is timed.
        wants_outputs: Whether the outputs for all inputs are wanted.
        timed: What a run is.
        settle_seconds: How long warming up may go on until the times settle.
        least_seconds: Fast artifacts get more runs, up to so long.
        token: By which the answer is known.
    """

    artifacts: tuple[Artifact, ...]
    conditions: Conditions = DEFAULT_CONDITIONS
    inputs: tuple[Array, ...] | None = None
    wants_outputs: bool = False
    timed: Timed = "call"
    settle_seconds: float = 0.5
    least_seconds: float = 0.5
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            DeviceError: If a number is out of range, or an artifact is not there or not the one that was described.
        """
        how = self.conditions
        if how.runs < 1 or how.warmup < 0 or how.threads < 1:
            raise DeviceError(
                f"runs and threads must be at least 1 and warmup not negative; got {how.runs}, {how.threads}, "
                f"{how.warmup}"
            )
        for artifact in self.artifacts:
            if not artifact.path.exists():
                raise DeviceError(f"there is no artifact at {artifact.path}")
            if files.sha256(artifact.path) != artifact.sha256:
                raise DeviceError(f"{artifact.path} was altered since it was described; export it again")

    @property
    def names(self) -> str:
        """The artifacts' names, for messages."""
        shown = [artifact.path.name for artifact in self.artifacts[:3]]
        return ", ".join([*shown, "..."] if len(self.artifacts) > len(shown) else shown)

    @property
    def environment(self) -> dict[str, str]:
        """What the runner's process finds in its environment."""
        return {"OMP_NUM_THREADS": str(self.conditions.threads), "PYTHONWARNINGS": "ignore"}

    def write(self, folder: Path, paths: Sequence[str], loader: Loader) -> list[str]:
        """Write the request, and its inputs, to a folder that the runner runs in.

        Args:
            folder: Where to.
            paths: Of the artifacts, as the runner will find them.
            loader: What loads them.

        Returns:
            The names of the files that the runner will write there.
        """
        items, answers = [], []
        for index, (artifact, path) in enumerate(zip(self.artifacts, paths, strict=True)):
            values = None if self.inputs is None else f"inputs-{index}.npz"
            answer = f"outputs-{index}.npz" if self.wants_outputs else None
            if self.inputs is not None and values is not None:
                np.savez(folder / values, **pieces(artifact, self.inputs))
            items.append(
                {
                    "path": path,
                    "format": artifact.format,
                    "inputs": [spec.model_dump() for spec in artifact.inputs],
                    "outputs": [spec.model_dump() for spec in artifact.outputs],
                    "values": values,
                    "answers": answer,
                    "compute_units": self.conditions.compute_units,
                    **loader.told(artifact, path),
                }
            )
            answers += [answer] if answer is not None else []
        content = {
            "token": self.token,
            "artifacts": items,
            "runs": self.conditions.runs,
            "warmup": self.conditions.warmup,
            "settle_seconds": self.settle_seconds,
            "least_seconds": self.least_seconds,
            "threads": self.conditions.threads,
            "affinity": list(self.conditions.affinity),
            "timed": self.timed,
            "operators": self.conditions.operators,
            "read": [*_hostinfo.READ, *_load.READ],
        }
        (folder / REQUEST_NAME).write_text(json.dumps(content), encoding="utf-8")
        return answers


class Timing(BaseModel):
    """What was seen of one artifact: each run in milliseconds, in order; whether warming up came to an end.

    Of tools that state no single runs: the mean of every ``averaged`` runs. ``timed`` is what a run was there, which a
    runtime, or a program that times it, may not do as it was asked. ``compute_units`` are those that the runtime was
    allowed, where it knows such.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Plain
    runtime_version: Plain
    timed: Timed
    measurable: bool
    compute_units: ComputeUnits | None = None
    settled: bool
    milliseconds: tuple[float, ...]
    averaged: int = Field(default=1, ge=1)
    peak_memory_bytes: int | None = Field(ge=0)
    operators: tuple[OperatorTime, ...] = ()


class Answer(BaseModel):
    """What the runner says of the machine and of each artifact; texts of the system's files, before and after.

    ``pinned`` are cores that the device chose where nobody named any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    machine: Plain
    system: Plain
    python: Plain | None
    cores: int | None = Field(ge=1)
    affinity: tuple[int, ...] | None
    pinned: tuple[int, ...] = ()
    elapsed_s: float = Field(ge=0, allow_inf_nan=False)
    before: Mapping[str, PlainText]
    after: Mapping[str, PlainText]
    timings: tuple[Timing, ...]


class _Failure(BaseModel):
    stage: Plain
    message: PlainText


class _Failed(BaseModel):
    token: str
    failure: _Failure


@dataclass(frozen=True)
class Outcome:
    """An answer, with the outputs that were asked for: of each artifact, in PyTorch's layout."""

    answer: Answer
    outputs: tuple[tuple[Array, ...], ...] = ()


def require_end(request: MeasurementRequest, status: int, stderr: bytes, device: str) -> None:
    """Refuse a runner that did not come to its end.

    Raises:
        DeviceError: If a signal ended it, or it failed without an answer; with the end of what it printed.
    """
    complaint = decoded(stderr).strip()[-_SHOWN_CHARACTERS:]
    if status < 0:
        known = -status in {each.value for each in signal.Signals}
        name = signal.Signals(-status).name if known else f"signal {-status}"
        killed = "; is there enough memory?" if name == "SIGKILL" else "; is the file damaged?"
        raise DeviceError(
            f"{device}: the runtime ended with {name} while measuring {request.names}{killed}\n{complaint}"
        )
    if status:
        absent = complaint.rpartition("No module named ")[2] if "No module named " in complaint else None
        remedy = "" if absent is None else f"; install {absent} there, for the Python that is used"
        raise DeviceError(f"{device}: measuring {request.names} failed{remedy}:\n{complaint}")


def read_answer(request: MeasurementRequest, printed: bytes, *, seconds: float, device: str) -> Answer:
    """Understand the line that the runner printed.

    Args:
        request: What was asked.
        printed: What it printed.
        seconds: How long that took by this machine's clock.
        device: For messages.

    Raises:
        DeviceError: If the runner failed, or what it printed cannot be the truth.
    """
    try:
        failed = _Failed.model_validate_json(printed)
    except ValidationError:
        pass
    else:
        failure = failed.failure
        remedy = _REMEDIES.get(failure.stage, "")
        kind = UnsupportedError if failure.stage == "format" else DeviceError
        raise kind(
            f"{device}: {request.names} failed at the stage {failure.stage!r}: {failure.message[-_SHOWN_CHARACTERS:]} "
            f"({remedy})"
        )
    try:
        answer = Answer.model_validate_json(printed)
    except ValidationError as error:
        raise DeviceError(
            f"{device}: what came back for {request.names} is no answer: {_shown(printed)}; does something else print "
            "there?"
        ) from error
    if answer.token != request.token or len(answer.timings) != len(request.artifacts):
        raise DeviceError(f"{device}: the answer for {request.names} is another job's; measure again")
    require_possible(request, answer, seconds=seconds, device=device)
    return answer


def require_possible(request: MeasurementRequest, answer: Answer, *, seconds: float, device: str) -> None:
    """Refuse times that cannot be the truth: clocks jump.

    Raises:
        DeviceError: If runs are missing, took no time, or longer than passed here meanwhile.
    """
    times = [value for timing in answer.timings for value in timing.milliseconds]
    whole = all(len(timing.milliseconds) * timing.averaged >= request.conditions.runs for timing in answer.timings)
    if not whole or not all(math.isfinite(value) and value > 0 for value in times):
        raise DeviceError(f"{device}: the times of {request.names} are not all positive: the device's clock jumped")
    total = sum(sum(timing.milliseconds) * timing.averaged for timing in answer.timings) / 1000.0
    if total > _CLOCK_TOLERANCE * answer.elapsed_s or total > _CLOCK_TOLERANCE * seconds:
        raise DeviceError(
            f"{device}: the runs of {request.names} would have taken {total:.3g} s, and {seconds:.3g} s passed here: "
            "the device's clock jumped; measure again"
        )


def most_output_bytes(request: MeasurementRequest) -> list[int]:
    """Return the most bytes that each artifact's outputs may take in a file, whatever the type of their values."""
    found = []
    for artifact in request.artifacts:
        shapes = [spec.torch_shape for spec in artifact.inputs]
        batches = 1 if request.inputs is None else len(list(whole_batches(request.inputs, shapes)))
        values = sum(prod(spec.shape) for spec in artifact.outputs)
        found.append(_MOST_BYTES_A_VALUE * values * batches + _BESIDE_VALUES)
    return found


def read_outputs(artifact: Artifact, path: Path, device: str) -> tuple[Array, ...]:
    """Read what the runner wrote, in PyTorch's layout.

    Raises:
        DeviceError: If it is not there, or no such file.
    """
    try:
        _require_unpacked(path)
        with np.load(path, allow_pickle=False) as written:
            batches = [written[str(index)] for index in range(len(artifact.outputs))]
        for spec, batch in zip(artifact.outputs, batches, strict=True):
            if not isinstance(batch, np.ndarray):
                raise ValueError(f"{spec.name} is no array")
            if batch.shape[1:] != spec.shape or str(batch.dtype) != spec.dtype or not len(batch):
                raise ValueError(f"{spec.name} is {batch.dtype}{batch.shape}, not batches of {spec.dtype}{spec.shape}")
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        said = plain(str(error))[:_SHOWN_CHARACTERS]
        raise DeviceError(f"{device}: the outputs of {artifact.path.name} cannot be read: {said}") from error
    return tuple(
        spec.to_torch(np.concatenate(list(batch))) for spec, batch in zip(artifact.outputs, batches, strict=True)
    )


def _require_unpacked(path: Path) -> None:
    """Refuse files that would grow when they are read: numpy writes them as they are."""
    with zipfile.ZipFile(path) as opened:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in opened.infolist()):
            raise ValueError("they are compressed")


def pieces(artifact: Artifact, inputs: Sequence[Array]) -> dict[str, Any]:
    """Cut inputs into batches of the artifact's own size, in its own layout; each array has an axis for them.

    What is the same for all samples is in each.

    Raises:
        DeviceError: If the inputs are not the artifact's, or fewer than a batch.
    """
    if len(inputs) != len(artifact.inputs):
        raise DeviceError(f"{artifact.path.name} takes {len(artifact.inputs)} inputs, {len(inputs)} were given")
    for spec, array in zip(artifact.inputs, inputs, strict=True):
        if array.shape[1:] != spec.torch_shape[1:]:
            raise DeviceError(f"{artifact.path.name} takes inputs of shape {spec.torch_shape}, {array.shape} was given")
    shapes = [spec.torch_shape for spec in artifact.inputs]
    batch, total = batch_and_total(inputs, shapes)
    whole = list(whole_batches(inputs, shapes))
    if not whole:
        raise DeviceError(f"{artifact.path.name} runs batches of {batch}, {total} samples were given")
    return {
        str(index): np.stack([spec.from_torch(piece[index]) for piece in whole])
        for index, spec in enumerate(artifact.inputs)
    }


def _shown(printed: bytes) -> str:
    text = decoded(printed).strip()
    return repr(text[:200]) if text else "nothing"
