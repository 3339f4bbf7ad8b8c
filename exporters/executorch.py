"""ExecuTorch: ``.pte`` in float32 or int8 through the XNNPACK delegate."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from sekron_edge.exporters._prepare import calibration_batches, prepared
from sekron_edge.exporters._silence import last_words, silenced

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, Availability, Precision, TensorSpec
from sekron_edge.errors import ExportError, MissingDependencyError
from sekron_edge.nn import equalize_labels_

_MAGIC = b"ET12"
_METHOD = "forward"
# ExecuTorch names types by the number of PyTorch's ScalarType.
_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}
_NO_COMPUTATION = ("getitem",)


class ExecuTorchExporter:
    """Lowers with the XNNPACK recipe of ``executorch.export``, runs with ExecuTorch's runtime."""

    name = "executorch"
    suffix = ".pte"
    precisions: tuple[Precision, ...] = ("fp32", "int8")

    def availability(self) -> Availability:
        """Say whether executorch is installed."""
        if find_spec("executorch") is None:
            return Availability(False, "install it with: pip install 'sekron-edge[executorch]'")
        return Availability(True, versions=_versions())

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
        calibration: Sequence[torch.Tensor] | None = None,
    ) -> Artifact:
        """Lower ``model``; the whole graph goes to XNNPACK where its operators allow it.

        In int8 weights are symmetric by output channel, activations by tensor; inputs and outputs stay float32.

        Raises:
            ConfigError: If int8 lacks calibration data.
            ExportError: If lowering fails; with the end of what the SDK said.
            MissingDependencyError: If executorch is absent.
        """
        if find_spec("executorch") is None:
            raise MissingDependencyError("executorch", "executorch")
        evaluated = prepared(model, self.name)
        batches = [example_inputs]
        if precision == "int8":
            batches = list(calibration_batches(calibration, example_inputs, self.name))
            equalize_labels_(evaluated, batches)
        with files.whole_file(path) as temporary:
            with silenced() as spoken:
                try:
                    session = _lower(evaluated, batches, precision)
                    temporary.write_bytes(session.get_pte_buffer())
                    delegated = _delegated_share(session)
                except Exception as error:  # the SDK raises whatever its passes raise
                    raise ExportError(
                        f"executorch: lowering {type(model).__name__} failed: {error}\n{last_words(spoken)}"
                    ) from error
            _, method = _load(temporary)
        inputs, outputs = _specs(method)
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            versions=_versions(),
            delegated=delegated,
        )

    def import_runtime(self) -> None:
        """Import ExecuTorch's runtime.

        Raises:
            MissingDependencyError: If executorch is absent.
        """
        _runtime()

    def load(self, artifact: Artifact, *, threads: int = 1) -> ExecuTorchSession:
        """Load the file in ExecuTorch's runtime.

        Raises:
            ExportError: If it is no readable program.
            MissingDependencyError: If executorch is absent.
        """
        return ExecuTorchSession(artifact.path, threads)


def _lower(model: torch.nn.Module, batches: list[tuple[torch.Tensor, ...]], precision: Precision) -> Any:
    """Lower with a recipe; in int8 all batches calibrate, the first also stands for the shapes."""
    # The recipes register themselves when their provider is imported.
    from executorch.backends.xnnpack.recipes import xnnpack_recipe_provider  # noqa: F401
    from executorch.backends.xnnpack.recipes.xnnpack_recipe_types import XNNPackRecipeType
    from executorch.export import ExportRecipe, export

    kind = XNNPackRecipeType.FP32 if precision == "fp32" else XNNPackRecipeType.PT2E_INT8_STATIC_PER_CHANNEL
    return export(model, batches, ExportRecipe.get_recipe(kind))


def _delegated_share(session: Any) -> float:
    from executorch.devtools.backend_debug import get_delegation_info

    program = session.get_executorch_program_manager().exported_program()
    kinds = get_delegation_info(program.graph_module).delegation_by_operator
    computing = [kind for name, kind in kinds.items() if name not in _NO_COMPUTATION]
    delegated = sum(kind.delegated for kind in computing)
    return float(delegated) / max(1, delegated + sum(kind.non_delegated for kind in computing))


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("executorch", "torch", "torchao")}


def _runtime() -> Any:
    if find_spec("executorch") is None:
        raise MissingDependencyError("executorch", "executorch")
    with silenced():
        from executorch import runtime

        return runtime


def _load(path: Path) -> tuple[Any, Any]:
    runtime = _runtime()
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[4:8] != _MAGIC:
        raise ExportError(f"{path} is no .pte file: bytes 4 to 8 must be {_MAGIC!r}, got {head[4:8]!r}")
    try:
        with silenced():
            checked = runtime.Verification.InternalConsistency
            program = runtime.Runtime.get().load_program(path, verification=checked)
            return program, program.load_method(_METHOD)
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{path} cannot be read by ExecuTorch, export it again: {error}") from error


def _set_threads(threads: int) -> None:
    _runtime()
    from executorch.extension.pybindings import portable_lib

    # Resetting the pool while another method holds it hangs: only where it changes anything.
    if portable_lib._threadpool_get_thread_count() != threads:
        with silenced():
            portable_lib._unsafe_reset_threadpool(threads)


def _specs(method: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    meta = method.metadata

    def spec(name: str, tensor: Any) -> TensorSpec:
        return TensorSpec(name=name, shape=tuple(tensor.sizes()), dtype=_TYPES[tensor.dtype()])

    inputs = [spec(f"input_{index}", meta.input_tensor_meta(index)) for index in range(meta.num_inputs())]
    outputs = [spec(f"output_{index}", meta.output_tensor_meta(index)) for index in range(meta.num_outputs())]
    return inputs, outputs


class ExecuTorchSession:
    """A program in ExecuTorch's runtime. The thread pool is the process's: the last session sets it."""

    runtime = "executorch"
    measurable = True

    def __init__(self, path: Path, threads: int) -> None:
        self.runtime_version = version("executorch")
        # The program owns memory that its method runs on: without this reference execute() fails with 0x10.
        _set_threads(threads)
        self._program, self._method = _load(path)

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once."""
        outputs = self._method.execute([torch.from_numpy(value) for value in inputs])
        return tuple(value.detach().numpy().copy() for value in outputs)
