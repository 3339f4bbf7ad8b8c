"""ExecuTorch's program for Android: it states each run, older ones their sum, and writes what comes out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sekron_edge.artifacts import Artifact
from sekron_edge.measurement import AndroidTool, MeasurementRequest, Readings
from sekron_edge.measurement.transports import launch_count, runs_of_a_launch

_NUMBER = r"([0-9.]+(?:[eE][+-]?[0-9]+)?)"
_OUTPUTS = "out"


class ExecutorRunner(AndroidTool):
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
            [*shared, f"--num_executions={count}"]
            for count in (cold, *[cold + runs_of_a_launch(request)] * launch_count(request))
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
        cold, each = max(1, request.conditions.warmup), runs_of_a_launch(request)
        sums, single = [], []
        for text in printed:
            sum_of_runs = re.search(rf"Model executed successfully \d+ time\(s\) in {_NUMBER} ms", text)
            if sum_of_runs is None:
                raise self.not_understood(text)
            sums.append(float(sum_of_runs[1]))
            single.append([float(value) for value in re.findall(rf"Iteration \d+ of \d+: {_NUMBER} ms", text)])
        if all(len(values) == cold + each for values in single[1:]):
            return Readings(tuple(value for values in single[1:] for value in values[cold:]), 1, None)
        return Readings(tuple((total - sums[0]) / each for total in sums[1:]), each, None)
