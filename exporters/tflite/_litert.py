"""LiteRT (TensorFlow Lite): ``.tflite`` in floats or int8, channel-last input where the model takes images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sekron_edge import files
from sekron_edge.artifacts import Artifact, Availability, DeviceRuntime, Precision, Snippet
from sekron_edge.primitives import Primitive

from . import on_device
from ._android import BenchmarkModel
from ._convert import FILE_COSTS, RUNTIME, SDK, interpreter, tensor_specs, write_tflite

if TYPE_CHECKING:
    import torch

# What the interpreter calls a partition of the graph that a delegate runs; listed after the graph's own operators.
_PARTITION = "DELEGATE"


class LiteRTExporter:
    """Converts with litert-torch, runs with ai-edge-litert (which applies XNNPACK by itself)."""

    name = "litert"
    suffix = ".tflite"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int16x8", "int8-weights", "int4-weights")
    primitive_precisions: tuple[Precision, ...] = ("fp32", "int8")
    keeps_float_in: tuple[Precision, ...] = ("int8",)
    primitive_count = 1000
    file_costs = FILE_COSTS
    sdk = SDK
    device_runtime = DeviceRuntime(Path(on_device.__file__), on_device.LiteRT.__name__)
    android_tool = BenchmarkModel()

    def availability(self) -> Availability:
        """Say whether the converter, the quantizer and the interpreter are installed."""
        return self.sdk.availability()

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
        """Convert ``model``; inputs and outputs of four axes become channel-last, in int8 they are integers.

        In int8 weights are symmetric by output channel, activations by tensor, and everything is integer but the layers
        in ``keep_float``, and the inputs and outputs that lead to them alone; in int16x8 activations have 16 bits. In
        fp16, int8-weights and int4-weights it is the file that is smaller: computation is in float32.

        Raises:
            ConfigError: If int8 or int16x8 lacks calibration data.
            ExportError: If the conversion fails, with the end of what the converter said; or if LiteRT has no kernel of
                16 bits for an operator.
            MissingDependencyError: If litert-torch, or but for fp32 ai-edge-quantizer, is absent.
        """
        with files.whole_file(path) as temporary:
            inputs, outputs = write_tflite(
                model, example_inputs, temporary,
                precision=precision, calibration=calibration, exporter=self.name, keep_float=keep_float,
            )  # fmt: skip
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=inputs,
            outputs=outputs,
            versions=self.sdk.versions(),
            delegated=_delegated_share(interpreter(path, threads=1)),
        )

    def export_primitive(self, primitive: Primitive, path: Path, *, precision: Precision) -> Artifact:
        """Write a model of one primitive with random weights, for latency models."""
        from ._primitives import primitive_model

        with files.whole_file(path) as temporary:
            temporary.write_bytes(primitive_model(primitive, precision))
        written = interpreter(path, threads=1)
        return Artifact.describe(
            path,
            format=self.name,
            precision=precision,
            inputs=tensor_specs(written.get_input_details(), ()),
            outputs=tensor_specs(written.get_output_details(), ()),
            versions={"ai-edge-litert": version("ai-edge-litert")},
        )

    def snippet(self) -> Snippet:
        """Return the code that runs an artifact in Python."""
        return Snippet("{stem}_litert.py", Path(__file__).with_name("snippet.py.j2").read_text(encoding="utf-8"))

    def import_runtime(self) -> None:
        """Import LiteRT's interpreter.

        Raises:
            MissingDependencyError: If ai-edge-litert is absent.
        """
        self.sdk.imported("ai-edge-litert", RUNTIME)

    def load(self, artifact: Artifact, *, threads: int = 1) -> on_device.LiteRTSession:
        """Load the file in LiteRT's interpreter.

        Raises:
            ExportError: If it is no readable model.
            MissingDependencyError: If ai-edge-litert is absent.
        """
        return on_device.LiteRTSession(interpreter(artifact.path, threads), self.name, version("ai-edge-litert"))


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
