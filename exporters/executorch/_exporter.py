"""ExecuTorch: ``.pte`` through the XNNPACK delegate, or for the Core ML and Vulkan delegates and Cortex-M."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch

from sekron_edge import files
from sekron_edge.artifacts import (
    Artifact,
    Availability,
    DeviceRuntime,
    Precision,
    Session,
    Snippet,
    TensorSpec,
    converting,
    reading,
)
from sekron_edge.errors import ExportError, NotRunnableError
from sekron_edge.nn import equalize_labels_
from sekron_edge.primitives import Primitive
from sekron_edge.silence import last_words, silenced

from .._canonical import canonical
from .._prepare import calibration_batches, prepared
from . import on_device
from ._android import ExecutorRunner
from ._primitives import Primitives, times_of
from ._targets import SDK, TARGETS, computing_share

_MAGIC = b"ET12"
# ExecuTorch's Error::NotFound, of a backend, and Error::OperatorMissing, as its Python binding writes them.
_ABSENT = ("0x:20", "0x:14")
_MISSING = re.compile(r"Missing operator: \[\d+\] (\S+)")
# ExecuTorch names types by the number of PyTorch's ScalarType.
_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}


class ExecuTorchExporter:
    """Lowers for one of ExecuTorch's backends, runs with its runtime what that has a backend for.

    Without a variant it is XNNPACK's: any CPU of a phone, a board or a desktop.
    """

    variants: ClassVar[tuple[str, ...]] = tuple(name for name in TARGETS if name)
    primitive_count = 180
    sdk = SDK

    def __init__(self, variant: str = "") -> None:
        self.name = f"executorch:{variant}" if variant else "executorch"
        self.suffix = f".{variant}.pte" if variant else ".pte"
        self._target = TARGETS[variant]
        self.precisions: tuple[Precision, ...] = self._target.precisions
        # What other backends run on is in no ExecuTorch that pip installs.
        runtime = DeviceRuntime(Path(on_device.__file__), on_device.ExecuTorch.__name__)
        self.device_runtime = None if variant else runtime
        self.android_tool = ExecutorRunner() if self._target.on_android else None
        self.primitive_precisions: tuple[Precision, ...] = () if variant else self._target.precisions
        self.keeps_float_in: tuple[Precision, ...] = () if self._target.lower_keeping is None else ("int8",)

    def availability(self) -> Availability:
        """Say whether executorch is installed, and what lowering for this target takes beside it."""
        needed = self._target.needs.availability()
        return self.sdk.availability() if needed.ok else needed

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
        keep_float: Sequence[str] = (),
    ) -> Artifact:
        """Lower ``model``; the whole graph goes to the target's backend where its operators allow it.

        In int8 weights are symmetric by output channel, activations by tensor; inputs and outputs stay float32, and so
        do the layers in ``keep_float``.

        Raises:
            ConfigError: If int8 lacks calibration data.
            ExportError: If lowering fails; with the end of what the SDK said.
            MissingDependencyError: If executorch, or what the target takes, is absent.
        """
        self._target.needs.require()
        evaluated = prepared(model, self.name)
        batches = [example_inputs]
        if precision == "int8":
            batches = list(calibration_batches(calibration, example_inputs, self.name))
            equalize_labels_(evaluated, batches)
        return self._lowered(
            canonical(evaluated, example_inputs, self._target.converter), batches, precision, path, keep_float
        )

    def _lowered(
        self,
        model: torch.nn.Module,
        batches: list[tuple[torch.Tensor, ...]],
        precision: Precision,
        path: Path,
        keep_float: Sequence[str] = (),
    ) -> Artifact:
        keeping = self._target.lower_keeping if keep_float else None
        with files.whole_file(path) as temporary:
            with converting(model, self.name, "lowering"):
                if keeping is None:
                    program = self._target.lower(model, batches, precision)
                else:
                    program = keeping(model, batches, keep_float)
                temporary.write_bytes(program.buffer)
                taken = computing_share(program, self._target)
            inputs, outputs = _specs(_program(temporary).metadata(on_device.METHOD))
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            versions=self.sdk.versions(),
            delegated=taken,
        )

    def export_primitives(self, primitives: Sequence[Primitive], path: Path, *, precision: Precision) -> Artifact:
        """Lower primitives side by side, with random weights, for latency models."""
        model = Primitives(primitives).eval()
        return self._lowered(model, [model.example_inputs()], precision, path)

    def primitive_times(
        self, primitives: Sequence[Primitive], operators: Sequence[tuple[str, float, float]]
    ) -> list[tuple[float, float]]:
        """Return the milliseconds of each primitive, and their spread.

        Raises:
            ExportError: If these are not the operators of such a model.
        """
        return times_of(primitives, operators)

    def snippet(self) -> Snippet | None:
        """Return the code that runs an artifact in Python; None for other backends than XNNPACK."""
        text = Path(__file__).with_name("snippet.py.j2").read_text(encoding="utf-8")
        return Snippet("{stem}_executorch.py", text) if self.device_runtime else None

    def import_runtime(self) -> None:
        """Import ExecuTorch's runtime.

        Raises:
            MissingDependencyError: If executorch is absent.
        """
        _runtime()

    def load(self, artifact: Artifact, *, threads: int = 1) -> Session:
        """Load the file in ExecuTorch's runtime; where that lacks Core ML, what is Core ML's in Core ML's evaluator.

        Raises:
            ExportError: If it is no readable program.
            NotRunnableError: If this machine's runtime lacks the backend; names where it runs.
            MissingDependencyError: If executorch is absent.
        """
        try:
            _set_threads(threads)
            program = _program(artifact.path)
            return on_device.ExecuTorchSession(program, _method(program, artifact.path), artifact.path)
        except _NoBackendError as error:
            if self._target.evaluated is not None:
                return self._target.evaluated(artifact)
            raise NotRunnableError(
                f"{artifact.path.name} is not runnable here: {self.name} runs on {self._target.runs_on}; this "
                f"machine's ExecuTorch {version('executorch')} has no such backend"
            ) from error


class _NoBackendError(Exception):
    """The file is a program, and its method asks for what this build of the runtime lacks."""


def _runtime() -> Any:
    return SDK.imported("executorch", "executorch.runtime")


def _program(path: Path) -> Any:
    runtime = _runtime()
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[4:8] != _MAGIC:
        raise ExportError(f"{path} is no .pte file: bytes 4 to 8 must be {_MAGIC!r}, got {head[4:8]!r}")
    with reading(path, "ExecuTorch", (RuntimeError, ValueError)):
        checked = runtime.Verification.InternalConsistency
        return runtime.Runtime.get().load_program(path, verification=checked)


def _method(program: Any, path: Path) -> Any:
    with silenced() as spoken:
        try:
            return program.load_method(on_device.METHOD)
        except (RuntimeError, ValueError) as error:
            missing = sorted(set(_MISSING.findall(last_words(spoken))))
            if missing and all(name.startswith("aten::") for name in missing):  # others are a backend's own
                raise ExportError(
                    f"{path}: this ExecuTorch has no kernel for {', '.join(missing)}, which its delegate does not take "
                    "either: write the model without, or build the runtime with them"
                ) from error
            if str(error).endswith(_ABSENT):
                raise _NoBackendError from error
            raise ExportError(f"{path} cannot be read by ExecuTorch, export it again: {error}") from error


def _set_threads(threads: int) -> None:
    _runtime()
    from executorch.extension.pybindings import portable_lib

    # Resetting the pool while another method holds it hangs: only where it changes anything. Asking looks at the
    # processor first, and says so.
    with silenced():
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)


def _specs(meta: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    def spec(name: str, tensor: Any) -> TensorSpec:
        return TensorSpec(name=name, shape=tuple(tensor.sizes()), dtype=_TYPES[tensor.dtype()])

    inputs = [spec(f"input_{index}", meta.input_tensor_meta(index)) for index in range(meta.num_inputs())]
    outputs = [spec(f"output_{index}", meta.output_tensor_meta(index)) for index in range(meta.num_outputs())]
    return inputs, outputs
