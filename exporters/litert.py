"""LiteRT (TensorFlow Lite): ``.tflite`` in float32 or int8, channel-last input where the model takes images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sekron_edge.exporters._prepare import calibration_batches, prepared
from sekron_edge.exporters._silence import last_words, silenced
from sekron_edge.exporters._tflite_compact import compact
from sekron_edge.exporters._tflite_int8 import in_own_layout, quantized_model

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, Availability, Precision, Quantization, TensorSpec
from sekron_edge.errors import ExportError, MissingDependencyError
from sekron_edge.nn import equalize_labels_
from sekron_edge.primitives import FileCosts, Primitive

if TYPE_CHECKING:
    import torch

_IMAGE_AXES = 4
_MAGIC = b"TFL3"
# What the interpreter calls a partition of the graph that a delegate runs; listed after the graph's own operators.
_PARTITION = "DELEGATE"


class LiteRTExporter:
    """Converts with litert-torch, runs with ai-edge-litert (which applies XNNPACK by itself)."""

    name = "litert"
    suffix = ".tflite"
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    primitive_precisions: tuple[Precision, ...] = ("fp32", "int8")
    primitive_count = 1000
    # As `python -m benchmarks.artifact_bytes` found them.
    file_costs: ClassVar[dict[Precision, FileCosts]] = {
        "fp32": FileCosts(product=215, channel=3.9, move=520, other=210),
        "int8": FileCosts(product=365, channel=16.6, move=780, other=120),
    }

    def availability(self) -> Availability:
        """Say whether litert-torch and ai-edge-quantizer are installed."""
        if any(find_spec(package) is None for package in ("litert_torch", "ai_edge_quantizer")):
            return Availability(False, "install it with: pip install 'sekron-edge[litert]'")
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
        """Convert ``model``; inputs and outputs of four axes become channel-last, in int8 they are integers.

        In int8 weights are symmetric by output channel, activations by tensor, and everything is integer.

        Raises:
            ConfigError: If int8 lacks calibration data.
            ExportError: If the conversion fails; with the end of what the converter said.
            MissingDependencyError: If litert-torch, or for int8 ai-edge-quantizer, is absent.
        """
        for package in ("litert_torch", "ai_edge_quantizer"):
            if find_spec(package) is None and (precision == "int8" or package == "litert_torch"):
                raise MissingDependencyError(package.replace("_", "-"), "litert")
        evaluated = prepared(model, self.name)
        batches = None
        if precision == "int8":
            equalize_labels_(evaluated, calibration_batches(calibration, example_inputs, self.name))
            batches = calibration_batches(calibration, example_inputs, self.name)
        with torch.no_grad():
            result = evaluated(*example_inputs)
        results = result if isinstance(result, tuple) else (result,)
        images = [index for index, value in enumerate(example_inputs) if value.ndim == _IMAGE_AXES]
        image_results = [index for index, value in enumerate(results) if value.ndim == _IMAGE_AXES]
        with files.whole_file(path) as temporary, silenced() as spoken:
            try:
                _convert(evaluated, example_inputs, images, image_results, temporary)
                if batches is not None:
                    content = temporary.read_bytes()
                    specs = _specs(_interpreter(temporary, threads=1).get_input_details(), images)
                    samples = ([value.numpy() for value in batch] for batch in batches)
                    temporary.write_bytes(quantized_model(content, in_own_layout(specs, samples)))
                temporary.write_bytes(compact(temporary.read_bytes()))
            except Exception as error:  # the converter raises whatever its layers raise
                raise ExportError(
                    f"litert: converting {type(model).__name__} failed: {error}\n{last_words(spoken)}"
                ) from error
        interpreter = _interpreter(path, threads=1)
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=_specs(interpreter.get_input_details(), images),
            outputs=_specs(interpreter.get_output_details(), image_results),
            versions=_versions(),
            delegated=_delegated_share(interpreter),
        )

    def export_primitive(self, primitive: Primitive, path: Path, *, precision: Precision) -> Artifact:
        """Write a model of one primitive with random weights, for latency models."""
        from sekron_edge.exporters._tflite_primitives import primitive_model

        with files.whole_file(path) as temporary:
            temporary.write_bytes(primitive_model(primitive, precision))
        interpreter = _interpreter(path, threads=1)
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=_specs(interpreter.get_input_details(), ()),
            outputs=_specs(interpreter.get_output_details(), ()),
            versions={"ai-edge-litert": version("ai-edge-litert")},
        )

    def import_runtime(self) -> None:
        """Import LiteRT's interpreter.

        Raises:
            MissingDependencyError: If ai-edge-litert is absent.
        """
        _runtime()

    def load(self, artifact: Artifact, *, threads: int = 1) -> LiteRTSession:
        """Load the file in LiteRT's interpreter.

        Raises:
            ExportError: If it is no readable model.
            MissingDependencyError: If ai-edge-litert is absent.
        """
        return LiteRTSession(_interpreter(artifact.path, threads))


def _convert(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    images: list[int],
    image_results: list[int],
    path: Path,
) -> None:
    """Write ``model`` in float32, with the inputs and results of the given numbers channel-last."""
    import litert_torch

    native = tuple(
        value.permute(0, 2, 3, 1).contiguous() if index in images else value
        for index, value in enumerate(example_inputs)
    )
    wrapped: Any = model
    if images or image_results:
        wrapped = litert_torch.to_channel_last_io(model, args=images, outputs=image_results)
    litert_torch.convert(wrapped.eval(), native).export(str(path))


def _versions() -> dict[str, str]:
    packages = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer", "torch")
    return {package: version(package) for package in packages if find_spec(package.replace("-", "_")) is not None}


def _runtime() -> Any:
    if find_spec("ai_edge_litert") is None:
        raise MissingDependencyError("ai-edge-litert", "litert")
    with silenced():
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter


def _interpreter(path: Path, threads: int) -> Any:
    interpreter_class = _runtime()
    content = path.read_bytes()
    if content[4:8] != _MAGIC:
        raise ExportError(f"{path} is no .tflite file: bytes 4 to 8 must be {_MAGIC!r}, got {content[4:8]!r}")
    try:
        with silenced():
            interpreter = interpreter_class(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ExportError(f"{path} cannot be read by LiteRT, export it again: {error}") from error
    return interpreter


def _delegated_share(interpreter: Any) -> float:
    """Return the share of operators that XNNPACK takes: those between what its partitions read and what they give."""
    operators = interpreter._get_ops_details()
    own = [operator for operator in operators if operator["op_name"] != _PARTITION]
    producer = {int(tensor): operator for operator in own for tensor in operator["outputs"]}
    taken: set[int] = set()
    for partition in operators[len(own) :]:
        given = set(map(int, partition["inputs"]))
        waiting = [int(tensor) for tensor in partition["outputs"]]
        while waiting:
            tensor = waiting.pop()
            if tensor in given or tensor not in producer or producer[tensor]["index"] in taken:
                continue
            taken.add(producer[tensor]["index"])
            waiting += map(int, producer[tensor]["inputs"])
    return len(taken) / max(1, len(own))


def _specs(details: Sequence[dict[str, Any]], channels_last: Sequence[int]) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=str(detail["name"]),
            shape=tuple(int(size) for size in detail["shape"]),
            dtype=np.dtype(detail["dtype"]).name,
            layout="channels_last" if index in channels_last else "torch",
            quantization=_quantization(detail),
        )
        for index, detail in enumerate(details)
    ]


def _quantization(detail: dict[str, Any]) -> Quantization | None:
    scale, zero_point = detail["quantization"]
    return Quantization(scale=scale, zero_point=zero_point) if scale else None


class LiteRTSession:
    """A model in LiteRT's interpreter."""

    runtime = "litert"
    measurable = True

    def __init__(self, interpreter: Any) -> None:
        self.runtime_version = version("ai-edge-litert")
        self._interpreter = interpreter
        self._inputs = [detail["index"] for detail in interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def prepare(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Hand over the inputs; return what computes on them."""
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        compute: Callable[[], object] = self._interpreter.invoke
        return compute

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once, in the artifact's own layout."""
        self.prepare(inputs)()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)
