"""The cost of rounding to int8, layer by layer, before anything is exported; settings of training against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.nn import FakeQuantized, equalize_labels_
from sekron_edge.settings import Settings
from sekron_edge.verification import compare

# Half of the noise: layers are worth keeping in float if this few make up that much.
_WORTH_DB = 3.0
_FEW = 3
_SAMPLES = 64


class QuantizationConfig(Settings):
    """When a finished model is trained against rounding, and for how long.

    Attributes:
        tolerance: Accepted loss of the task's metric, in its own unit, on the calibration data.
        epochs: Of quantization-aware distillation where more is lost; 0: never.
        learning_rate: The peak rate, as a share of that of fine-tuning.
    """

    tolerance: float = Field(default=0.01, ge=0)
    epochs: int = Field(default=1, ge=0)
    learning_rate: float = Field(default=0.3, gt=0)


class LayerQuantization(BaseModel):
    """One layer: its loss to factors, and its loss to rounding.

    Attributes:
        name: The layer's name in the model.
        float_error: Relative error of its output when it was decomposed; None where it is dense.
        snr_db: Signal-to-noise ratio of the model's output if only this layer is rounded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    float_error: float | None
    snr_db: float


class QuantizationReport(BaseModel):
    """The cost of int8, simulated in floats on calibration data; the artifact itself is verified elsewhere.

    Attributes:
        samples: Number of calibration inputs that were run.
        snr_db: Of the model's output with all layers rounded.
        layers: In the order in which they run.
        keep_float: Up to three layers that make up half of the noise or more; empty where it takes more than three.
        kept_snr_db: Ratio with those in float; equal to ``snr_db`` where there are none.
        trained: Whether the model was trained against rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    snr_db: float
    layers: tuple[LayerQuantization, ...]
    keep_float: tuple[str, ...]
    kept_snr_db: float
    trained: bool = False

    @property
    def to_blame(self) -> str:
        """The layer whose rounding costs most."""
        return min(self.layers, key=lambda layer: layer.snr_db).name

    def __str__(self) -> str:
        worst = min(layer.snr_db for layer in self.layers)
        said = (
            f"int8, simulated: signal-to-noise {self.snr_db:.1f} dB; {self.to_blame} costs most ({worst:.1f} dB alone)"
        )
        if not self.keep_float:
            return f"{said}; no {_FEW} layers make up half of the noise"
        return f"{said}; with {', '.join(self.keep_float)} in float it would be {self.kept_snr_db:.1f} dB"


def simulated(model: nn.Module, calibration: pytrees.Inputs) -> FakeQuantized:
    """Return a copy of a model that rounds as its int8 files do: factors rescaled, ranges from the calibration data.

    Args:
        model: In any mode; left as it was.
        calibration: Real inputs, batched, in the form of `sekron_edge.pytrees.call`; never held-out data.
    """
    copy = deepcopy(model).eval()
    equalize_labels_(copy, [calibration])
    return FakeQuantized(copy, [calibration]).eval()


def report_quantization(
    model: nn.Module,
    calibration: pytrees.Inputs,
    *,
    float_errors: Mapping[str, float] | None = None,
    trained: bool = False,
) -> QuantizationReport:
    """Round every layer by itself, then all together, and report the effect on the model's output.

    Args:
        model: In any mode; left as it was.
        calibration: As for `simulated`; ranges are of all, figures of the first 64.
        float_errors: Relative errors of layers that were decomposed, by name.
        trained: Whether the model was trained against rounding.
    """
    rounding, inputs = simulated(model, calibration), next(pytrees.batches(calibration, _SAMPLES))
    expected = _run(rounding.model, inputs)
    together = _snr(expected, _run(rounding, inputs))
    errors = float_errors or {}
    layers = []
    for name in rounding.layers:
        with rounding.only([name]):
            alone = _snr(expected, _run(rounding, inputs))
        layers.append(LayerQuantization(name=name, float_error=errors.get(name), snr_db=alone))
    keep, kept = _worth_keeping(rounding, layers, expected, inputs, together)
    return QuantizationReport(
        samples=pytrees.batch_size(inputs), snr_db=together, layers=tuple(layers), keep_float=keep, kept_snr_db=kept,
        trained=trained,
    )  # fmt: skip


def _worth_keeping(
    rounding: FakeQuantized,
    layers: Sequence[LayerQuantization],
    expected: Sequence[Tensor],
    inputs: pytrees.Inputs,
    all_db: float,
) -> tuple[tuple[str, ...], float]:
    """Leave the costliest layers in float, one after another, until half of the noise is gone."""
    worst = [layer.name for layer in sorted(layers, key=lambda layer: layer.snr_db)][:_FEW]
    for count in range(1, len(worst) + 1):
        with rounding.without(worst[:count]):
            left = _snr(expected, _run(rounding, inputs))
        if left >= all_db + _WORTH_DB:
            return tuple(worst[:count]), left
    return (), all_db


def _run(model: nn.Module, inputs: pytrees.Inputs) -> list[Tensor]:
    with torch.no_grad():
        return pytrees.tensors(pytrees.call(model, inputs))


def _snr(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    return compare([value.numpy() for value in expected], [value.numpy() for value in actual]).snr_db
