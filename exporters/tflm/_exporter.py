"""TensorFlow Lite Micro: ``.tflite`` for microcontrollers, with the arena it needs and its C++ source."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sekron_edge import files
from sekron_edge.artifacts import Arena, Array, Artifact, Availability, Precision, Sdk, Snippet, TensorSpec, reading
from sekron_edge.errors import ExportError

from ..tflite._adopt import inputs_and_outputs
from ..tflite._convert import FILE_COSTS, write_tflite
from ..tflite._convert import SDK as LITERT
from ..tflite._graph import model_content, read_file
from ..tflite._macs import macs, precision
from . import _sources
from ._memory import require_runs, tested_arena

if TYPE_CHECKING:
    import torch

_PACKAGE = "tflite-micro"
SDK = Sdk({**LITERT.packages, _PACKAGE: "tflite_micro"}, install="pip install 'sekron-edge[tflm]'")


class TFLMExporter:
    """Converts as for LiteRT, runs with TensorFlow Lite Micro's interpreter: what it says of time is no device's."""

    name = "tflm"
    suffix = ".micro.tflite"
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    file_costs = FILE_COSTS
    sdk = SDK

    def availability(self) -> Availability:
        """Say whether the converter and the interpreter are installed."""
        return self.sdk.availability()

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
    ) -> Artifact:
        """Convert ``model``, and run it in smaller and smaller arenas.

        Raises:
            ConfigError: If int8 lacks calibration data.
            ExportError: If the conversion fails, or the runtime lacks an operator; names it.
            MissingDependencyError: If the converter or the interpreter is absent.
        """
        self.sdk.require(_PACKAGE)
        with files.whole_file(path) as temporary:
            inputs, outputs = write_tflite(
                model, example_inputs, temporary, precision=precision, calibration=calibration, exporter=self.name
            )
            arena = tested_arena(temporary)
        return self._described(path, precision, inputs, outputs, arena)

    def adopt(self, file: Path, folder: Path) -> Artifact:  # noqa: ARG002 - the file is used as it is
        """Take up a .tflite that something else wrote: see whether it runs, and in how small an arena.

        Raises:
            ExportError: If it cannot be read, or the runtime lacks an operator; names it.
            MissingDependencyError: If the interpreter is absent.
        """
        self.sdk.require(_PACKAGE)
        found = read_file(file)
        inputs, outputs = inputs_and_outputs(found, file)
        return self._described(file, precision(found), inputs, outputs, tested_arena(file))

    def _described(
        self,
        path: Path,
        precision: Precision,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        arena: Arena,
    ) -> Artifact:
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            versions=self.sdk.versions(),
            arena=arena,
            macs=macs(read_file(path)),
        )

    def sources(self, artifact: Artifact) -> dict[str, str]:
        """Return a header and a source file: the model, the operators to register, the size of the arena."""
        arena = artifact.arena
        assert arena is not None
        return _sources.sources(
            artifact.path.read_bytes(),
            read_file(artifact.path),
            artifact.path.name.removesuffix(self.suffix),
            least=arena.least_bytes,
            margin=arena.margin,
            arena=arena.size_bytes,
            kernels=arena.kernels,
        )

    def snippet(self) -> Snippet:
        """Return the code that runs an artifact in C++, with its sources."""
        return Snippet("{stem}_tflm.cc", Path(__file__).with_name("snippet.cc.j2").read_text(encoding="utf-8"))

    def import_runtime(self) -> None:
        """Import the interpreter.

        Raises:
            MissingDependencyError: If tflite-micro is absent.
        """
        _runtime()

    def load(self, artifact: Artifact, *, threads: int = 1) -> TFLMSession:  # noqa: ARG002 - it has one
        """Load the file in the interpreter, in an arena of the size that was tested.

        Raises:
            ExportError: If it is no readable model, lacks memory, or ends the process that tries it first.
            MissingDependencyError: If tflite-micro is absent.
        """
        assert artifact.arena is not None
        return TFLMSession(artifact.path, artifact.arena.size_bytes)


def _runtime() -> Any:
    return SDK.imported(_PACKAGE, "tflite_micro.python.tflite_micro.runtime")


class TFLMSession:
    """A model in TensorFlow Lite Micro's interpreter on this machine."""

    runtime = "tflm"
    measurable = False

    def __init__(self, path: Path, arena_bytes: int) -> None:
        runtime = _runtime()
        file = require_runs(path, arena_bytes)  # the interpreter trusts its file: a damaged one would end this process
        self.runtime_version = version("tflite-micro")
        with reading(path, "TensorFlow Lite Micro", (RuntimeError,)):
            self._interpreter = runtime.Interpreter.from_bytes(model_content(path), arena_size=arena_bytes)
        self._path, self._outputs = path, len(file.main.outputs)

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once, in the artifact's own layout.

        Raises:
            ExportError: If the interpreter fails on these inputs.
        """
        try:
            for index, value in enumerate(inputs):
                self._interpreter.set_input(value, index)
            self._interpreter.invoke()
            return tuple(np.array(self._interpreter.get_output(index)) for index in range(self._outputs))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ExportError(f"{self._path} does not run in TensorFlow Lite Micro on these inputs: {error}") from error
