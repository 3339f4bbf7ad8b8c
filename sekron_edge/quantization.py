"""The cost of rounding to int8, layer by layer, before anything is exported; settings of training against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.nn import FakeQuantized, equalize_labels_
from sekron_edge.settings import Settings
from sekron_edge.verification import compare, noise_like

# Half of the noise: layers are worth keeping in float if this few make up that much.
_WORTH_DB = 3.0
_FEW = 3
# That many of the costliest are tried.
_CANDIDATES = 4
_SAMPLES = 64


def _names_or_auto(value: object) -> object:
    names = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if not names and value != "auto":
        raise PydanticCustomError("keep_float", 'Input should be "auto", or a list of the names of layers')
    return value


class QuantizationConfig(Settings):
    """When a finished model is trained against rounding, for how long, and what is not rounded.

    Attributes:
        tolerance: Accepted loss of the task's metric, in its own unit, on the calibration data.
        epochs: Of quantization-aware distillation where more is lost; 0: never.
        learning_rate: The peak rate, as a share of that of fine-tuning.
        keep_float: Names of layers that int8 artifacts keep in float; or ``auto``: up to three, where they make up half
            of the noise and int8 costs more than the tolerance.
    """

    tolerance: float = Field(default=0.01, ge=0)
    epochs: int = Field(default=1, ge=0)
    learning_rate: float = Field(default=0.3, gt=0)
    keep_float: Annotated[Literal["auto"] | tuple[str, ...], BeforeValidator(_names_or_auto)] = ()

    @property
    def named_floats(self) -> tuple[str, ...]:
        """The layers that are named; none where they are chosen."""
        return () if self.keep_float == "auto" else self.keep_float


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
        keep_float: Up to three layers that make up half of the noise or more, empty where it takes more than three;
            or else the layers that the artifacts keep in float.
        kept_snr_db: Ratio with those in float; equal to ``snr_db`` where there are none.
        kept: Whether the artifacts keep them in float: a job asked for it.
        trained: Whether the model was trained against rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    snr_db: float
    layers: tuple[LayerQuantization, ...]
    keep_float: tuple[str, ...]
    kept_snr_db: float
    kept: bool = False
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
        names, ratio = ", ".join(self.keep_float), f"{self.kept_snr_db:.1f} dB"
        return (
            f"{said}; with {names} in float, as delivered, it is {ratio}"
            if self.kept
            else (f"{said}; with {names} in float it would be {ratio}")
        )


def simulated(model: nn.Module, calibration: pytrees.Inputs, keep_float: Sequence[str] = ()) -> FakeQuantized:
    """Return a copy of a model that rounds as its int8 files do: factors rescaled, ranges from the calibration data.

    Args:
        model: In any mode; left as it was.
        calibration: Real inputs, batched, in the form of `sekron_edge.pytrees.call`; never held-out data.
        keep_float: Names of the layers that the files keep in float.
    """
    copy = deepcopy(model).eval()
    equalize_labels_(copy, [calibration])
    return FakeQuantized(copy, [calibration], keep_float).eval()


def report_quantization(
    model: nn.Module,
    calibration: pytrees.Inputs,
    *,
    float_errors: Mapping[str, float] | None = None,
    trained: bool = False,
    keep_float: Sequence[str] = (),
) -> QuantizationReport:
    """Round every layer by itself, then all together, and report the effect on the model's output.

    Args:
        model: In any mode; left as it was.
        calibration: As for `simulated`; ranges are of all, figures of the first 64.
        float_errors: Relative errors of layers that were decomposed, by name.
        trained: Whether the model was trained against rounding.
        keep_float: Layers that the files keep in float; the report proposes some where there are none.
    """
    rounding, inputs = simulated(model, calibration), next(pytrees.batches(calibration, _SAMPLES))
    trial = _Trial(rounding, inputs)
    errors = float_errors or {}
    layers = []
    for name in rounding.layers:
        with rounding.only([name]):
            layers.append(LayerQuantization(name=name, float_error=errors.get(name), snr_db=trial.snr_db()))
    together = trial.snr_db()
    keep = tuple(keep_float) or _worth_keeping(trial, layers, together)
    return QuantizationReport(
        samples=pytrees.batch_size(inputs), snr_db=together, layers=tuple(layers), keep_float=keep,
        kept_snr_db=trial.kept_db(keep), kept=bool(keep_float), trained=trained,
    )  # fmt: skip


def proposed_floats(model: nn.Module, calibration: pytrees.Inputs) -> tuple[str, ...]:
    """Return the layers that `report_quantization` proposes to keep in float; the arguments are its."""
    return report_quantization(model, calibration).keep_float


def loudest_floats(
    model: nn.Module, calibration: pytrees.Inputs, least_snr_db: float, kept: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return as few layers as it takes, in float, for a ratio (`verifiable_snr_db`); each time the one that gains most.

    Args:
        model: As for `report_quantization`.
        calibration: As for `report_quantization`.
        least_snr_db: The ratio that is wanted. Where no number of layers gives it, all but the quietest are returned.
        kept: Layers that are in float in any case.
    """
    rounding = simulated(model, calibration)
    trials = _as_verified(rounding, calibration)

    def left_db(names: Sequence[str]) -> float:
        return min(trial.kept_db(names) for trial in trials)

    names = list(kept)
    while left_db(names) < least_snr_db and len(names) < len(rounding.layers) - 1:
        others = [name for name in rounding.layers if name not in names]
        names.append(max(others, key=lambda name: left_db([*names, name])))
    order = list(rounding.layers)
    return tuple(sorted(names, key=order.index))


def verifiable_snr_db(model: nn.Module, calibration: pytrees.Inputs, keep_float: Sequence[str] = ()) -> float:
    """Return the signal-to-noise ratio that verification would see: the lower one of real inputs and noise like them.

    Args:
        model: As for `report_quantization`.
        calibration: As for `report_quantization`.
        keep_float: Layers that the files keep in float.
    """
    rounding = simulated(model, calibration)
    return min(trial.kept_db(keep_float) for trial in _as_verified(rounding, calibration))


def _as_verified(rounding: FakeQuantized, calibration: pytrees.Inputs) -> list[_Trial]:
    real = next(pytrees.batches(calibration, _SAMPLES))
    generator = torch.Generator().manual_seed(0)
    return [_Trial(rounding, one) for one in (real, pytrees.map_batched(lambda x: noise_like(x, generator), real))]


class _Trial:
    """Inputs, and what the model gives without rounding: what a simulation is held against."""

    def __init__(self, rounding: FakeQuantized, inputs: pytrees.Inputs) -> None:
        self.rounding = rounding
        self._inputs = inputs
        self._expected = _run(rounding.model, inputs)

    def snr_db(self) -> float:
        """Return the ratio as the simulation rounds now."""
        actual = _run(self.rounding, self._inputs)
        return compare([value.numpy() for value in self._expected], [value.numpy() for value in actual]).snr_db

    def kept_db(self, names: Sequence[str]) -> float:
        """Return the ratio with some layers in float."""
        with self.rounding.without(names):
            return self.snr_db()


def _worth_keeping(trial: _Trial, layers: Sequence[LayerQuantization], all_db: float) -> tuple[str, ...]:
    """Leave layers in float, each time what gains most, until half of the noise is gone.

    Of a layer that is hard to round because of what it reads, those that make it are tried as well: what they give is
    rounded otherwise.
    """
    worst = [layer.name for layer in sorted(layers, key=lambda layer: layer.snr_db)][:_CANDIDATES]
    groups = [{name} for name in worst] + [
        {name, *(maker for maker in makers if maker is not None)}
        for name in worst
        if (makers := trial.rounding.makers(name)) and None not in makers
    ]
    order = [layer.name for layer in layers]
    kept: set[str] = set()
    while True:
        options = {tuple(sorted(kept | group, key=order.index)) for group in groups if not group <= kept}
        most = min(_FEW, len(layers) - 1)  # something is rounded
        ratios = {names: trial.kept_db(names) for names in sorted(options) if len(names) <= most}
        if not ratios:
            return ()
        best = max(ratios, key=lambda names: (ratios[names], -len(names)))
        if ratios[best] >= all_db + _WORTH_DB:
            return best
        kept = set(best)


def _run(model: nn.Module, inputs: pytrees.Inputs) -> list[Tensor]:
    with torch.no_grad():
        return pytrees.tensors(pytrees.call(model, inputs))
