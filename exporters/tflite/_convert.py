"""From a PyTorch model to a .tflite file, whichever of its runtimes it is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sekron_edge.artifacts import Precision, Quantization, Sdk, TensorSpec, converting, reading
from sekron_edge.errors import ExportError
from sekron_edge.nn import equalize_labels_
from sekron_edge.primitives import FileCosts

from .._canonical import LITERT, canonical
from .._prepare import calibration_batches, prepared
from ._compact import compact
from ._graph import model_content, parsed
from ._kept import floats_around, with_other_weights
from ._quantize import ACTIVATION_BITS, in_own_layout, quantized_model, with_small_weights

SDK = Sdk(
    {
        "litert-torch": "litert_torch",
        "ai-edge-litert": "ai_edge_litert",
        "ai-edge-quantizer": "ai_edge_quantizer",
        "torch": "torch",
    },
    install="pip install 'sekron-edge[litert]'",
)
RUNTIME = "ai_edge_litert.interpreter"
_IMAGE_AXES = 4
# As `python -m benchmarks.artifact_bytes` found them.
FILE_COSTS: dict[Precision, FileCosts] = {
    "fp32": FileCosts(product=215, channel=3.9, move=520, other=210),
    "int8": FileCosts(product=365, channel=16.6, move=780, other=120),
}


def write_tflite(
    model: torch.nn.Module,
    example_inputs: tuple[torch.Tensor, ...],
    path: Path,
    *,
    precision: Precision,
    calibration: Sequence[torch.Tensor] | None,
    exporter: str,
    keep_float: Sequence[str] = (),
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Convert ``model``; inputs and outputs of four axes become channel-last, in int8 they are integers.

    In int8 weights are symmetric by output channel, activations by tensor, and everything is integer but norms of what
    was just computed, and divisions by it (`kept_in_floats`).

    Args:
        model: Left untouched.
        example_inputs: One tensor an input.
        path: File to write.
        precision: Any but ``fp32``, ``int8`` and ``int16x8`` is of the weights alone.
        calibration: Real inputs; int8 and int16x8 take their ranges from them.
        exporter: Named in errors.
        keep_float: Names of the layers that int8 leaves in float.

    Returns:
        Inputs and outputs, as the file declares them.

    Raises:
        ConfigError: If int8 or int16x8 lacks calibration data.
        ExportError: If the conversion fails, with the end of what the converter said; or if LiteRT has no kernel of 16
            bits for an operator.
        MissingDependencyError: If litert-torch, or but for fp32 ai-edge-quantizer, is absent.
    """
    SDK.require("litert-torch", *(() if precision == "fp32" else ("ai-edge-quantizer",)))
    evaluated = prepared(model, exporter)
    batches = None
    if precision in ACTIVATION_BITS:
        equalize_labels_(evaluated, calibration_batches(calibration, example_inputs, exporter))
        batches = calibration_batches(calibration, example_inputs, exporter)
    with torch.no_grad():
        result = evaluated(*example_inputs)
    results = result if isinstance(result, tuple) else (result,)
    images = [index for index, value in enumerate(example_inputs) if value.ndim == _IMAGE_AXES]
    image_results = [index for index, value in enumerate(results) if value.ndim == _IMAGE_AXES]
    with converting(model, exporter):

        def converted(one: torch.nn.Module) -> bytes:
            _convert(canonical(one, example_inputs, LITERT), example_inputs, images, image_results, path)
            return path.read_bytes()

        other = converted(with_other_weights(evaluated, keep_float)) if keep_float else b""
        content = converted(evaluated)
        floats = floats_around(parsed(content, path), parsed(other, path)) if keep_float else []
        if batches is not None:
            specs = tensor_specs(interpreter(path, threads=1).get_input_details(), images)
            samples = ([value.numpy() for value in batch] for batch in batches)
            content = quantized_model(content, in_own_layout(specs, samples), floats, bits=ACTIVATION_BITS[precision])
        elif precision != "fp32":
            content = with_small_weights(content, precision)
        path.write_bytes(compact(content))
    if precision == "int16x8":
        _require_kernels(path, model, exporter)
    written = interpreter(path, threads=1)
    inputs = tensor_specs(written.get_input_details(), images)
    return inputs, tensor_specs(written.get_output_details(), image_results)


def _require_kernels(path: Path, model: torch.nn.Module, exporter: str) -> None:
    """Refuse a file with operators of 16 bits that LiteRT cannot run: it has kernels for some kinds only."""
    try:
        loaded = interpreter(path, threads=1)
        loaded.invoke()
    except (ExportError, RuntimeError, ValueError) as error:
        raise ExportError(
            f"{exporter}: LiteRT has no kernel with 16-bit activations for an operator of {type(model).__name__}; "
            f"export it in int8 or fp16: {error}"
        ) from error


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


def interpreter(path: Path, threads: int) -> Any:
    """Load a file in LiteRT.

    Raises:
        ExportError: If it cannot be read.
        MissingDependencyError: If ai-edge-litert is absent.
    """
    module = SDK.imported("ai-edge-litert", RUNTIME)
    content = model_content(path)
    with reading(path, "LiteRT", (RuntimeError, ValueError)):
        loaded = module.Interpreter(model_content=content, num_threads=threads)
        loaded.allocate_tensors()
    return loaded


def tensor_specs(details: Sequence[dict[str, Any]], channels_last: Sequence[int]) -> list[TensorSpec]:
    """Describe an interpreter's inputs or outputs; those of the given numbers are images, channels-last."""
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
