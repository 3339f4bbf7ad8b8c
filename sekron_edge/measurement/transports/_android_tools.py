"""The programs that time artifacts on Android: how they are called, and what they print.

LiteRT's ``benchmark_model`` states the mean of its runs, ExecuTorch's ``executor_runner`` each run (older ones their
sum); both write what comes out. Neither has a version to tell: the program's hash stands for it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from sekron_edge.artifacts import Artifact
from sekron_edge.errors import DeviceError
from sekron_edge.measurement._protocol import MeasurementRequest
from sekron_edge.measurement._records import OperatorTime

# As many as allow each so many runs.
_MOST_LAUNCHES, _RUNS_OF_A_LAUNCH = 5, 4
_NUMBER = r"([0-9.]+(?:[eE][+-]?[0-9]+)?)"
_MIB = 1 << 20
_OUTPUTS = "out"
_LEAST_S = 0.01  # of a launch: its clock ticks in microseconds, and only the mean of many runs is finer
_NEVER_S = 86_400  # the deadline ends it before


@dataclass(frozen=True)
class Readings:
    """What the launches of a program said: runs in milliseconds, or the mean of every ``averaged`` ones."""

    milliseconds: tuple[float, ...]
    averaged: int
    peak_memory_bytes: int | None


class Tool(ABC):
    """A program that times an artifact.

    Attributes:
        name: Of the program, and of its path in the user's file.
        runtime: What it runs artifacts with.
        traces: Whether it writes a trace.
        silent_if: What it may be, if it states no times.
    """

    name: str
    runtime: str
    traces: bool
    silent_if: str

    @abstractmethod
    def launches(self, model: str, request: MeasurementRequest) -> list[list[str]]:
        """Return the arguments of each launch that the times are made from."""

    @property
    def profile(self) -> list[str]:
        """Further arguments of a launch that times operators; none if the program cannot."""
        return []

    @abstractmethod
    def given(self, artifact: Artifact, names: Sequence[str]) -> list[str]:
        """Return further arguments of a launch, by which it takes its inputs from files of raw values."""

    @abstractmethod
    def answering(self, model: str) -> list[str]:
        """Return the arguments of a launch that runs a model once and writes its outputs."""

    @abstractmethod
    def answers(self, count: int) -> list[str]:
        """Return the files in which so many outputs are then, one behind the other, as raw values."""

    @abstractmethod
    def read(self, printed: Sequence[str], request: MeasurementRequest) -> Readings:
        """Understand what the launches printed, but for a profile.

        Raises:
            DeviceError: If it is nothing that the program prints.
        """


class BenchmarkModel(Tool):
    """LiteRT's, launched several times: its means show whether they drift."""

    name = "benchmark_model"
    runtime = "litert"
    traces = False
    silent_if = "another program of that name"

    def launches(self, model: str, request: MeasurementRequest) -> list[list[str]]:
        """Return the arguments of each launch."""
        arguments = [
            f"--graph={model}",
            f"--num_threads={request.conditions.threads}",
            f"--num_runs={_each(request)}",
            f"--warmup_runs={max(1, request.conditions.warmup)}",
            f"--warmup_min_secs={request.settle_seconds:g}",
            f"--min_secs={max(_LEAST_S, request.least_seconds / len(request.artifacts) / _launches(request)):g}",
            f"--max_secs={_NEVER_S}",
        ]
        return [arguments] * _launches(request)

    @property
    def profile(self) -> list[str]:
        """Return the flag of the profiler, which takes time itself."""
        return ["--enable_op_profiling=true"]

    def given(self, artifact: Artifact, names: Sequence[str]) -> list[str]:
        """Return names, shapes and files of all inputs; a colon of a name is doubled before a file."""
        specs = artifact.inputs
        shapes = (",".join(map(str, spec.shape)) for spec in specs)
        values = (f"{spec.name.replace(':', '::')}:{name}" for spec, name in zip(specs, names, strict=True))
        return [
            f"--input_layer={','.join(spec.name for spec in specs)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(values)}",
        ]

    def answering(self, model: str) -> list[str]:
        """Return the arguments of the least that it can do."""
        least = ["--num_runs=1", "--warmup_runs=1", "--warmup_min_secs=0", "--min_secs=0"]
        return [f"--graph={model}", *least, f"--output_filepath={_OUTPUTS}"]

    def answers(self, count: int) -> list[str]:  # noqa: ARG002
        """Return the one file that has all."""
        return [_OUTPUTS]

    def read(self, printed: Sequence[str], request: MeasurementRequest) -> Readings:
        """Read the means, and the memory that the model brought, which the tool itself calls approximate."""
        means, memory, runs = [], [], []
        for text in printed:
            counts = re.findall(r"count=(\d+)", text)
            mean = re.search(rf"Inference \(avg\): {_NUMBER}", text)
            if not counts or mean is None or int(counts[-1]) < _each(request):
                raise _not_understood(self, text)
            runs.append(int(counts[-1]))
            means.append(float(mean[1]) / 1000.0)
            footprint = re.search(rf"Memory footprint delta.*overall={_NUMBER}", text)
            if footprint is not None:
                memory.append(int(float(footprint[1]) * _MIB))
        return Readings(tuple(means), min(runs), max(memory, default=None))


class ExecutorRunner(Tool):
    """ExecuTorch's, launched once; where it states no single runs, several times, each without its warm-up."""

    name = "executor_runner"
    runtime = "executorch"
    traces = True
    silent_if = "built without EXECUTORCH_ENABLE_LOGGING=ON"

    def launches(self, model: str, request: MeasurementRequest) -> list[list[str]]:
        """Return the arguments of each launch, the first for the warm-up that the others begin with."""
        shared = [f"--model_path={model}", f"--cpu_threads={request.conditions.threads}"]
        cold = max(1, request.conditions.warmup)
        return [
            [*shared, f"--num_executions={count}"] for count in (cold, *[cold + _each(request)] * _launches(request))
        ]

    def given(self, artifact: Artifact, names: Sequence[str]) -> list[str]:  # noqa: ARG002
        """Return the files of the inputs in their order."""
        return [f"--inputs={','.join(names)}"]

    def answering(self, model: str) -> list[str]:
        """Return the arguments of one run."""
        return [f"--model_path={model}", f"--output_file={_OUTPUTS}"]

    def answers(self, count: int) -> list[str]:
        """Return a file for each output."""
        return [f"{_OUTPUTS}-{index}.bin" for index in range(count)]

    def read(self, printed: Sequence[str], request: MeasurementRequest) -> Readings:
        """Read single runs where they are stated; otherwise means, of the sums without the warm-up's."""
        cold, each = max(1, request.conditions.warmup), _each(request)
        sums, single = [], []
        for text in printed:
            sum_of_runs = re.search(rf"Model executed successfully \d+ time\(s\) in {_NUMBER} ms", text)
            if sum_of_runs is None:
                raise _not_understood(self, text)
            sums.append(float(sum_of_runs[1]))
            single.append([float(value) for value in re.findall(rf"Iteration \d+ of \d+: {_NUMBER} ms", text)])
        if all(len(values) == cold + each for values in single[1:]):
            return Readings(tuple(value for values in single[1:] for value in values[cold:]), 1, None)
        return Readings(tuple((total - sums[0]) / each for total in sums[1:]), each, None)


def _launches(request: MeasurementRequest) -> int:
    return max(1, min(_MOST_LAUNCHES, request.conditions.runs // _RUNS_OF_A_LAUNCH))


def _each(request: MeasurementRequest) -> int:
    """Return the least number of runs of a launch."""
    return -(-request.conditions.runs // _launches(request))


def read_operators(text: str) -> tuple[OperatorTime, ...]:
    """Read the table of operators in the order in which they run; none where there is no such table."""
    table = re.search(r"= Run Order =+\n(.*)\n((?:.+\n)+)", text)
    if table is None:
        return ()
    columns = [column.strip(" []") for column in table[1].strip().split("\t")]
    operators = []
    for line in table[2].splitlines():
        row = dict(zip(columns, (cell.strip() for cell in line.strip().split("\t")), strict=False))
        if re.fullmatch(_NUMBER, row.get("avg ms", "")):
            name = row.get("Name", "").rpartition(":")[0].strip("[]")
            operators.append(OperatorTime(name=name, kind=row.get("node type", ""), milliseconds=float(row["avg ms"])))
    return tuple(operators)


# By format.
TOOLS: dict[str, Tool] = {
    "litert": BenchmarkModel(),
    "executorch": ExecutorRunner(),
    "executorch:vulkan": ExecutorRunner(),
}


def _not_understood(tool: Tool, text: str) -> DeviceError:
    return DeviceError(f"{tool.name} printed no times but {text.strip()[-200:]!r}; is it {tool.silent_if}?")
