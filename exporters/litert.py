"""LiteRT (TensorFlow Lite): ``.tflite`` in float32, channel-last input where the model takes images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sekron_edge.exporters._prepare import prepared
from sekron_edge.exporters._silence import last_words, silenced

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, Availability, Precision, TensorSpec
from sekron_edge.errors import ExportError, MissingDependencyError
from sekron_edge.primitives import Primitive

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
    precisions: tuple[Precision, ...] = ("fp32",)

    def availability(self) -> Availability:
        """Say whether litert-torch is installed."""
        if find_spec("litert_torch") is None:
            return Availability(False, "install it with: pip install 'sekron-edge[litert]'")
        return Availability(True, versions=_versions())

    def export(
        self,
        model: torch.nn.Module,
        example_inputs: tuple[torch.Tensor, ...],
        *,
        precision: Precision,
        path: Path,
    ) -> Artifact:
        """Convert ``model``; inputs and outputs of four axes become channel-last.

        Raises:
            ExportError: If the conversion fails; with the end of what the converter said.
            MissingDependencyError: If litert-torch is absent.
        """
        if find_spec("litert_torch") is None:
            raise MissingDependencyError("litert-torch", "litert")
        import torch

        evaluated = prepared(model, self.name)
        with torch.no_grad():
            result = evaluated(*example_inputs)
        results = result if isinstance(result, tuple) else (result,)
        images = [index for index, value in enumerate(example_inputs) if value.ndim == _IMAGE_AXES]
        image_results = [index for index, value in enumerate(results) if value.ndim == _IMAGE_AXES]
        native = tuple(
            value.permute(0, 2, 3, 1).contiguous() if index in images else value
            for index, value in enumerate(example_inputs)
        )
        with files.whole_file(path) as temporary, silenced() as spoken:
            try:
                import litert_torch

                wrapped: Any = evaluated
                if images or image_results:
                    wrapped = litert_torch.to_channel_last_io(evaluated, args=images, outputs=image_results)
                litert_torch.convert(wrapped.eval(), native).export(str(temporary))
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

    def export_primitive(self, primitive: Primitive, path: Path) -> Artifact:
        """Write a float32 model of one primitive with random weights, for latency models."""
        from sekron_edge.exporters._tflite_primitives import primitive_model

        with files.whole_file(path) as temporary:
            temporary.write_bytes(primitive_model(primitive))
        interpreter = _interpreter(path, threads=1)
        return Artifact.describe(
            path,
            format=self.name,
            precision="fp32",
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


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("litert-torch", "ai-edge-litert", "torch")}


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
        )
        for index, detail in enumerate(details)
    ]


class LiteRTSession:
    """A model in LiteRT's interpreter."""

    runtime = "litert"
    measurable = True

    def __init__(self, interpreter: Any) -> None:
        self.runtime_version = version("ai-edge-litert")
        self._interpreter = interpreter
        self._inputs = [detail["index"] for detail in interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once, in the artifact's own layout."""
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)
