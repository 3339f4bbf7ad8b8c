"""Core ML: ``.mlpackage`` (ML program, iOS 17) in float32, float16 or int8."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import torch

from sekron_edge import files
from sekron_edge.artifacts import (
    Array,
    Artifact,
    Availability,
    DeviceRuntime,
    Precision,
    Sdk,
    Session,
    Snippet,
    TensorSpec,
    converting,
    reading,
)
from sekron_edge.errors import ExportError
from sekron_edge.nn import equalize_labels_

from .._canonical import COREML, canonical
from .._prepare import calibration_batches, prepared
from . import on_device

if TYPE_CHECKING:
    from .evaluator._program import TensorType

SDK = Sdk({"coremltools": "coremltools", "torch": "torch"}, install="pip install 'sekron-edge[coreml]'")
_DEBUGGING = "executorch_debug_handle_mapping.json"


class CoreMLExporter:
    """Converts with coremltools anywhere; runs in Core ML on macOS, in the reference evaluator elsewhere."""

    name = "coreml"
    suffix = ".mlpackage"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-weights")
    sdk = SDK
    device_runtime = DeviceRuntime(Path(on_device.__file__), on_device.CoreML.__name__, systems=("darwin",))

    def availability(self) -> Availability:
        """Say whether coremltools is installed."""
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
        """Convert ``model``; in fp16, weights and computation are float16.

        In int8 weights are symmetric by output channel, activations by tensor, inputs and outputs stay float32; a
        Neural Engine that multiplies integers (from the iPhone 15 Pro) computes in them, others unpack them. In
        int8-weights computation is float16: the package is small, and no faster.

        Raises:
            ConfigError: If int8 lacks calibration data.
            ExportError: If a weight is NaN, or the conversion fails; with the end of what coremltools said.
            MissingDependencyError: If coremltools is absent.
        """
        from .evaluator._program import read_interface

        self.sdk.require()
        evaluated = prepared(model, self.name)
        batches: list[tuple[torch.Tensor, ...]] = []
        if precision == "int8":
            batches = list(calibration_batches(calibration, example_inputs, self.name))
            equalize_labels_(evaluated, batches)
        with files.whole_folder(path) as temporary:
            with converting(model, self.name):
                plain = canonical(evaluated, example_inputs, COREML)
                _convert(plain, example_inputs, precision, batches).save(str(temporary))
            # Written for ExecuTorch's debugger; Core ML never reads it, and it may outweigh a small model.
            (temporary / _DEBUGGING).unlink(missing_ok=True)
            _make_reproducible(temporary)
            interface = read_interface(temporary)
            inputs, outputs = _specs(interface.inputs), _specs(interface.outputs)
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            versions=self.sdk.versions(),
        )

    def snippet(self) -> Snippet:
        """Return the code that runs an artifact in Swift."""
        return Snippet("{stem}_coreml.swift", Path(__file__).with_name("snippet.swift.j2").read_text(encoding="utf-8"))

    def import_runtime(self) -> None:
        """Import coremltools, which is Core ML's door on macOS and reads the packages elsewhere.

        Raises:
            MissingDependencyError: If coremltools is absent.
        """
        _runtime()

    def load(self, artifact: Artifact, *, threads: int = 1) -> Session:  # noqa: ARG002 - Core ML chooses its threads
        """Load the package: in Core ML on macOS, elsewhere in the reference evaluator, which says nothing about speed.

        Raises:
            ExportError: If it is no readable package, or the evaluator lacks an operation of it.
            MissingDependencyError: If coremltools is absent.
        """
        self.sdk.require("coremltools")
        return CoreMLSession(artifact) if sys.platform == "darwin" else ReferenceSession(artifact.path)


def _runtime() -> Any:
    return SDK.imported("coremltools", "coremltools")


def _convert(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    precision: Precision,
    batches: Sequence[tuple[torch.Tensor, ...]],
) -> Any:
    from ._quantize import with_int8_activations, with_int8_weights

    ct = _runtime()
    computed = ct.precision.FLOAT32 if precision == "fp32" else ct.precision.FLOAT16
    exported = torch.export.export(model, example_inputs).run_decompositions({})

    def converted(passes: Any) -> Any:
        return ct.convert(
            exported,
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=computed,
            skip_model_load=True,
            pass_pipeline=passes,
        )

    if precision == "int8":
        inputs = ([value.numpy() for value in batch] for batch in batches)
        return with_int8_weights(with_int8_activations(converted, inputs), least=0)
    program = converted(ct.PassPipeline.DEFAULT)
    return with_int8_weights(program) if precision == "int8-weights" else program


def _make_reproducible(package: Path) -> None:
    """Make equal models equal packages: coremltools names the items at random, and writes maps in any order."""
    from coremltools.proto import Model_pb2

    path = package / "Manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    entries = manifest["itemInfoEntries"]
    names = {name: str(uuid5(NAMESPACE_URL, entry["path"])) for name, entry in entries.items()}
    root = package / "Data" / entries[manifest["rootModelIdentifier"]]["path"]
    manifest["itemInfoEntries"] = {names[name]: entry for name, entry in entries.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    path.write_text(json.dumps(manifest, indent=4, sort_keys=True), encoding="utf-8")
    model = Model_pb2.Model.FromString(root.read_bytes())
    root.write_bytes(model.SerializeToString(deterministic=True))


def _specs(tensors: Sequence[TensorType]) -> list[TensorSpec]:
    for tensor in tensors:
        if None in tensor.shape:
            raise ExportError(f"coreml: the shape of {tensor.name} must not depend on the data, got {tensor.shape}")
    return [TensorSpec(name=tensor.name, shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors]


class CoreMLSession:
    """A package in Core ML, on macOS."""

    runtime = "coreml"
    measurable = True

    def __init__(self, artifact: Artifact) -> None:
        self.runtime_version = version("coremltools")
        self._artifact = artifact
        with reading(artifact.path, "Core ML"):  # coremltools raises bare exceptions of its own and of Core ML's
            self._model = _runtime().models.MLModel(str(artifact.path))
            # A package that Core ML refuses loads all the same; this raises then.
            self._model.get_compiled_model_path()

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once."""
        named = {spec.name: value for spec, value in zip(self._artifact.inputs, inputs, strict=True)}
        outputs = self._model.predict(named)
        return tuple(outputs[spec.name].astype(spec.dtype) for spec in self._artifact.outputs)


class ReferenceSession:
    """A package in the reference evaluator, where there is no Core ML."""

    runtime = "mil-reference"
    measurable = False

    def __init__(self, path: Path) -> None:
        from .evaluator._program import Program

        self.runtime_version = version("coremltools")
        self._program = Program(path)

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once."""
        return self._program.run(inputs)
