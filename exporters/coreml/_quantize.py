"""From a float ML program to one in int8: its weights alone, or what its operations take and give as well.

coremltools finds the ranges of activations by running programs in Core ML, which only Apple's systems have. Here the
reference evaluator runs them; everything else is coremltools' own passes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sekron_edge.artifacts import Array

from .evaluator._program import Program

# Of smaller ones nothing is gained where they are unpacked.
_LEAST_UNPACKED = 512
_MULTIPLYING = ("conv", "conv_transpose", "linear", "matmul")
_PAIRS = tuple(f"compression::insert_{place}_quantize_dequantize_pair" for place in ("prefix", "suffix"))
_CLEANING = "common::dequantize_quantize_pair_elimination"


def with_int8_weights(model: Any, *, least: int = _LEAST_UNPACKED) -> Any:
    """Store weights as integers, symmetric by output channel.

    Args:
        model: An ``MLModel`` that holds an ML program.
        least: Weights with so many values or fewer stay as they are.
    """
    from coremltools.optimize import coreml

    weights = coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=least)
    # Not the global configuration: that takes biases of factorized layers, which have four axes.
    chosen = coreml.OptimizationConfig(op_type_configs=dict.fromkeys(_MULTIPLYING, weights))
    return coreml.linear_quantize_weights(model, chosen)


def with_int8_activations(convert: Callable[[Any], Any], batches: Iterable[Sequence[Array]]) -> Any:
    """Convert a model so that what convolutions, linear layers, sums and pools take and give is rounded, by tensor.

    Ranges are the largest that any batch has.

    Args:
        convert: From a ``PassPipeline`` to an ``MLModel``; gives values the same names each time.
        batches: Calibration inputs of the program's own shapes.
    """
    import coremltools as ct
    from coremltools.optimize import coreml

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "float.mlpackage"
        convert(ct.PassPipeline.DEFAULT).save(str(package))
        ranges = _ranges(Program(package), batches)
    pipeline = ct.PassPipeline.DEFAULT
    rounding = coreml.OptimizationConfig(global_config=coreml.OpLinearQuantizerConfig(mode="linear"))
    for pair in _PAIRS:
        pipeline.append_pass(pair)
        pipeline.set_options(pair, {"config": rounding, "activation_stats": ranges})
    pipeline.append_pass(_CLEANING)
    return convert(pipeline)


def _ranges(program: Program, batches: Iterable[Sequence[Array]]) -> dict[str, dict[str, float]]:
    """Return the least and the largest value of everything that a program computes, as coremltools' passes want it."""
    found: dict[str, dict[str, float]] = {}

    def see(name: str, value: Tensor) -> None:
        if not value.is_floating_point():
            return
        low, high = map(float, value.aminmax())
        limits = found.setdefault(name, {"rmin": low, "rmax": high})
        limits.update(rmin=min(low, limits["rmin"]), rmax=max(high, limits["rmax"]))

    for batch in batches:
        program.run(batch, observe=see)
    return found
