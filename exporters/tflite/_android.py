"""LiteRT's program for Android: it states the mean of its runs, and writes what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sekron_edge.artifacts import Artifact
from sekron_edge.measurement import AndroidTool, MeasurementRequest, OperatorTime, Readings
from sekron_edge.measurement.transports import launch_count, runs_of_a_launch

_NUMBER = r"([0-9.]+(?:[eE][+-]?[0-9]+)?)"
_MIB = 1 << 20
_OUTPUTS = "out"
_LEAST_S = 0.01  # of a launch: its clock ticks in microseconds, and only the mean of many runs is finer
_NEVER_S = 86_400  # the deadline ends it before


class BenchmarkModel(AndroidTool):
    """LiteRT's, launched several times: its means show whether they drift."""

    name = "benchmark_model"
    runtime = "litert"

    def launches(self, model: str, request: MeasurementRequest) -> list[list[str]]:
        """Return the arguments of each launch."""
        arguments = [
            f"--graph={model}",
            f"--num_threads={request.conditions.threads}",
            f"--num_runs={runs_of_a_launch(request)}",
            f"--warmup_runs={max(1, request.conditions.warmup)}",
            f"--warmup_min_secs={request.settle_seconds:g}",
            f"--min_secs={max(_LEAST_S, request.least_seconds / len(request.artifacts) / launch_count(request)):g}",
            f"--max_secs={_NEVER_S}",
        ]
        return [arguments] * launch_count(request)

    @property
    def profile(self) -> list[str]:
        """Return the flag of the profiler, which takes time itself."""
        return ["--enable_op_profiling=true"]

    def operators(self, printed: str) -> tuple[OperatorTime, ...]:
        """Read the table of operators in the order in which they run; none where there is no such table."""
        table = re.search(r"= Run Order =+\n(.*)\n((?:.+\n)+)", printed)
        if table is None:
            return ()
        columns = [column.strip(" []") for column in table[1].strip().split("\t")]
        operators = []
        for line in table[2].splitlines():
            row = dict(zip(columns, (cell.strip() for cell in line.strip().split("\t")), strict=False))
            if re.fullmatch(_NUMBER, row.get("avg ms", "")):
                name = row.get("Name", "").rpartition(":")[0].strip("[]")
                operators.append(
                    OperatorTime(name=name, kind=row.get("node type", ""), milliseconds=float(row["avg ms"]))
                )
        return tuple(operators)

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
            if not counts or mean is None or int(counts[-1]) < runs_of_a_launch(request):
                raise self.not_understood(text)
            runs.append(int(counts[-1]))
            means.append(float(mean[1]) / 1000.0)
            footprint = re.search(rf"Memory footprint delta.*overall={_NUMBER}", text)
            if footprint is not None:
                memory.append(int(float(footprint[1]) * _MIB))
        return Readings(tuple(means), min(runs), max(memory, default=None))
