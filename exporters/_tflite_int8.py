"""From a float .tflite to one in int8, weights by channel and activations by tensor, with ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sekron_edge.artifacts import Array, TensorSpec

_SIGNATURE = "serving_default"


def quantized_model(content: bytes, samples: Iterable[Sequence[Array]]) -> bytes:
    """Quantize a model that litert-torch wrote; its inputs and outputs become int8 too.

    Ranges are the largest that any sample has. The quantizer's own default, a moving average, cuts off the outputs of
    the samples that a network is surest of.

    Args:
        content: Of the float file.
        samples: Calibration inputs in the file's own layout.

    Raises:
        ValueError: As the quantizer does, where it cannot.
    """
    from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    named = [{f"args_{index}": value for index, value in enumerate(sample)} for sample in samples]
    ranges.calibrate({_SIGNATURE: named}, manager)
    work = quantizer.Quantizer(content, recipe.static_wi8_ai8())
    found = work.quantize(ranges.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
    return bytes(found.quantized_model)


def in_own_layout(specs: Sequence[TensorSpec], batches: Iterable[Sequence[Array]]) -> Iterable[Sequence[Array]]:
    """Bring batches of PyTorch's layout to that of a file's inputs."""
    for batch in batches:
        yield [spec.from_torch(value) for spec, value in zip(specs, batch, strict=True)]
