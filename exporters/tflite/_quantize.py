"""From a float .tflite to a smaller one with ai-edge-quantizer: all of it in int8, or its weights alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sekron_edge.artifacts import Array, Precision, TensorSpec

from ._floats import kept_in_floats
from ._graph import parsed

_SIGNATURE = "serving_default"
_HALF_BITS = 16
_WIDE = 16
# Of the precisions whose activations are integers.
ACTIVATION_BITS: dict[Precision, int] = {"int8": 8, "int16x8": _WIDE}


def quantized_model(
    content: bytes, samples: Iterable[Sequence[Array]], floats: Sequence[str] = (), *, bits: int = 8
) -> bytes:
    """Quantize a model that litert-torch wrote, weights by channel, activations by tensor, inputs and outputs too.

    Ranges are the largest that any sample has. The quantizer's own default, a moving average, cuts off the outputs of
    the samples that a network is surest of. Some operations stay in floats (`kept_in_floats`).

    Args:
        content: Of the float file.
        samples: Calibration inputs in the file's own layout.
        floats: Scopes (`scope_of`) of further operations that stay in float.
        bits: Of activations, 8 or 16; weights have 8.

    Raises:
        ValueError: As the quantizer does, where it cannot.
    """
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai16() if bits == _WIDE else recipe.static_wi8_ai8())
    scopes = dict.fromkeys([*kept_in_floats(parsed(content, Path("float.tflite")).graphs), *floats])
    if scopes:
        # One rule for all: the quantizer tries every rule on every operator of every sample, and Python keeps only
        # some hundred patterns compiled. A name may be a part of another: only the whole counts.
        rule = f"^(?:{'|'.join(map(re.escape, scopes))})$"
        left = recipe_manager.AlgorithmName.NO_QUANTIZE
        manager.add_quantization_config(rule, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=left)
    ranges = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    named = [{f"args_{index}": value for index, value in enumerate(sample)} for sample in samples]
    ranges.calibrate({_SIGNATURE: named}, manager)
    work = quantizer.Quantizer(content, manager.get_quantization_recipe())
    found = work.quantize(ranges.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
    return bytes(found.quantized_model)


def with_small_weights(content: bytes, precision: Precision) -> bytes:
    """Store a model's weights in fewer bits; it computes in floats, and takes and gives them.

    Args:
        content: Of the float file.
        precision: ``fp16``, ``int8-weights`` or ``int4-weights``: halves, or integers by output channel.

    Raises:
        ValueError: As the quantizer does, where it cannot.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager

    if precision == "fp16":
        work = quantizer.Quantizer(content)
        halves = qtyping.TensorQuantizationConfig(num_bits=_HALF_BITS, dtype=qtyping.TensorDataType.FLOAT)
        work.update_quantization_recipe(
            regex=".*",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=halves, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            ),
            algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING,
        )
    else:
        rules = recipe.weight_only_wi8_afp32 if precision == "int8-weights" else recipe.weight_only_wi4_afp32
        work = quantizer.Quantizer(content, rules())
    return bytes(work.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


def in_own_layout(specs: Sequence[TensorSpec], batches: Iterable[Sequence[Array]]) -> Iterable[Sequence[Array]]:
    """Bring batches of PyTorch's layout to that of a file's inputs."""
    for batch in batches:
        yield [spec.from_torch(value) for spec, value in zip(specs, batch, strict=True)]
