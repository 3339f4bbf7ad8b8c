"""ExecuTorch's Python runtime on devices. This one file travels there: Python 3.8, numpy and ExecuTorch."""

from __future__ import annotations

import importlib
from importlib import metadata
from statistics import mean
from typing import Any, Sequence

METHOD = "forward"
_LIBRARY = "executorch.extension.pybindings.portable_lib"
_TRACED = 20  # runs under the tracer, beside the first
_TRACE = "trace.etdump"


class ExecuTorch:
    """``.pte`` in ExecuTorch's Python runtime."""

    def __init__(self, item: dict[str, Any]) -> None:  # noqa: ARG002 - every runtime is made of an item
        importlib.import_module("torch")  # now, so that its memory is not taken for the model's
        self._module = importlib.import_module("executorch.runtime")
        self._library = importlib.import_module(_LIBRARY)

    def load(self, item: dict[str, Any], threads: int) -> ExecuTorchSession:
        """Load a program, and set the thread pool, which is the process's."""
        # Resetting the pool while another method holds it hangs: only where it changes anything.
        if self._library._threadpool_get_thread_count() != threads:
            self._library._unsafe_reset_threadpool(threads)
        checked = self._module.Verification.InternalConsistency
        program = self._module.Runtime.get().load_program(item["path"], verification=checked)
        return ExecuTorchSession(program, program.load_method(METHOD), item["path"])


class ExecuTorchSession:
    """A program in ExecuTorch's runtime.

    Args:
        program: Owns memory that its method runs on: without this reference ``execute`` fails with 0x10.
        method: Of the program.
        path: Of the program.
    """

    runtime = "executorch"
    measurable = True

    def __init__(self, program: Any, method: Any, path: Any) -> None:
        self.runtime_version = metadata.version("executorch")
        self._torch = importlib.import_module("torch")
        self._program, self._method, self._path = program, method, str(path)

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Run once."""
        outputs = self._method.execute(self._tensors(inputs))
        return tuple(value.detach().numpy().copy() for value in outputs)

    def operators(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Run a second copy under ExecuTorch's tracer; return what each operator took on average."""
        library = importlib.import_module(_LIBRARY)
        traced = library._load_for_executorch(self._path, enable_etdump=True)
        for _ in range(1 + _TRACED):
            traced.run_method(METHOD, self._tensors(inputs))
        traced.write_etdump_result_to_file(_TRACE)
        blocks = importlib.import_module("executorch.devtools").Inspector(_TRACE).event_blocks
        events = [event for block in blocks if block.name == "Execute" for event in block.events if event.perf_data]
        # What only calls others would count their time twice.
        calls = {"Method::execute", "OPERATOR_CALL"}
        if any(event.delegate_debug_identifier is not None for event in events):
            calls.add("DELEGATE_CALL")
        return [_operator(event.name, event.perf_data.raw[1:]) for event in events if event.name not in calls]

    def _tensors(self, inputs: Sequence[Any]) -> list[Any]:
        return [self._torch.from_numpy(value) for value in inputs]


def _operator(name: str, times: Sequence[float]) -> dict[str, Any]:
    """Describe an operator by the mean of the middle half of its runs: some were interrupted."""
    quarter, ordered = len(times) // 4, sorted(times)
    middle = ordered[quarter : len(ordered) - quarter]
    kind, spread = name.partition(" #")[0], middle[-1] - middle[0]
    return {"name": name, "kind": kind, "milliseconds": mean(middle), "spread_ms": spread}
