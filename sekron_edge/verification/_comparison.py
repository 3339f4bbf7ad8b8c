"""How near an artifact's outputs are to its model's, and how near they must be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from sekron_edge.artifacts import Array, Precision
from sekron_edge.errors import VerificationError
from sekron_edge.settings import Settings

_PERFECT_DB = 200.0  # instead of infinity, which JSON cannot express


class Tolerance(Settings):
    """The limits of a verification.

    Attributes:
        snr_db: Least signal-to-noise ratio, in dB.
        agreement: Least share of decisions that agree.
        metric: Largest loss of the task's metric compared to the model's, if it is a share, as accuracy is. A metric
            of another unit has no loss that is small everywhere: the outputs' ratio judges, and the job's budget.
    """

    snr_db: float
    agreement: float
    metric: float

    def __str__(self) -> str:
        agreed = f" and {self.agreement:.1%} agreement" if self.agreement > 0 else ""
        return f"at least {self.snr_db:g} dB{agreed}"

    def of_outputs(self) -> Tolerance:
        """Return the limits on noise, where the model has learnt no decisions: their agreement says nothing."""
        return self.model_copy(update={"agreement": 0.0})


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(snr_db=60.0, agreement=0.998, metric=0.002),
    "fp16": Tolerance(snr_db=35.0, agreement=0.99, metric=0.01),
    # Within the calibrated ranges as near as int8-weights; beyond them values are cut off as in int8.
    "int16x8": Tolerance(snr_db=20.0, agreement=0.95, metric=0.01),
    "int8": Tolerance(snr_db=15.0, agreement=0.9, metric=0.03),
    "int8-weights": Tolerance(snr_db=25.0, agreement=0.95, metric=0.01),
    "int4-weights": Tolerance(snr_db=8.0, agreement=0.8, metric=0.1),
}


class Comparison(BaseModel):
    """Outputs of an artifact compared to those of its model, over all samples and outputs.

    Attributes:
        samples: Number of inputs.
        max_error, mean_error: Of the absolute differences.
        snr_db: ``10 log10(sum y^2 / sum (y - y')^2)``, at most 200; of several outputs, the lowest.
        agreement: Share of decisions that are the same: of samples, or of their places, whose largest output is at the
            same class. None where outputs decide nothing.
        output: The output with that ratio; None if there is one only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    max_error: float
    mean_error: float
    snr_db: float
    agreement: float | None
    output: str | None = None

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the tolerance is kept; one of several samples may always be a tie that falls the other way."""
        tie = 1 / self.samples if self.samples > 1 else 0.0
        least = min(tolerance.agreement, 1 - tie)
        return self.snr_db >= tolerance.snr_db and (self.agreement is None or self.agreement >= least)

    def __str__(self) -> str:
        agreed = "" if self.agreement is None else f", {self.agreement:.2%} of decisions agree"
        where = "" if self.output is None else f" ({self.output})"
        return f"max error {self.max_error:.3g}, signal-to-noise {self.snr_db:.1f} dB{where}{agreed}"


class MetricPair(BaseModel):
    """The task's metric of the model and of its artifact, on the same samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: float
    artifact: float

    def __str__(self) -> str:
        return f"{self.name} {self.artifact:.4g} (model {self.model:.4g})"


class Check(BaseModel):
    """A verification that held, on the given inputs and on noise like them, within their range.

    On noise the equal decisions are counted, and need not be many; the outputs themselves must be near.
    ``metric`` is None where no targets were given; ``measurable`` is False for a reference evaluator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_sha256: str
    runtime: str
    runtime_version: str
    measurable: bool
    tolerance: Tolerance
    real: Comparison
    noise: Comparison
    metric: MetricPair | None = None


def compare(
    expected: Sequence[Array], actual: Sequence[Array], *, classes: int | None = 0, names: Sequence[str] = ()
) -> Comparison:
    """Compare outputs, each ``(batch, ...)``. A value in ``actual`` that is not finite counts as infinitely wrong.

    Each output is compared by itself, so that a small one does not hide behind a large one: the lowest ratio counts.
    Outputs of integers are decisions.

    Args:
        expected: Outputs of the model.
        actual: Outputs of the artifact.
        classes: Number of the task's classes: a first output ``(batch, classes, ...)`` decides at each place. A first
            output ``(batch, values)`` decides in any case, except where this is None: then no floats decide.
        names: Of the outputs.

    Raises:
        VerificationError: If there are other outputs, or an output has another shape.
    """
    if len(expected) != len(actual):
        raise VerificationError(f"the artifact gives {len(actual)} outputs, the model {len(expected)}")
    ratios: list[float] = []
    equal: list[float] = []
    total = largest = 0.0
    count = 0
    for wanted, got in zip(expected, actual, strict=True):
        if wanted.shape != got.shape:
            raise VerificationError(f"the artifact gives an output of shape {got.shape}, the model {wanted.shape}")
        wide = wanted.astype(np.float64)
        error = np.nan_to_num(np.abs(got.astype(np.float64) - wide), nan=np.inf, posinf=np.inf)
        total += float(error.sum())
        largest = max(largest, float(error.max(initial=0.0)))
        count += error.size
        if wanted.dtype.kind == "f":
            ratios.append(_decibels(float(np.square(wide).sum()), float(np.square(error).sum())))
        else:
            ratios.append(_PERFECT_DB)
            equal.append(float((error == 0).mean()))
    first = expected[0]
    decides = first.ndim > 1 and first.shape[1] > 1 and first.dtype.kind == "f" and classes is not None
    if decides and (first.ndim == 2 or first.shape[1] == classes):
        equal.append(float((expected[0].argmax(1) == actual[0].argmax(1)).mean()))
    worst = int(np.argmin(ratios))
    return Comparison(
        samples=expected[0].shape[0],
        max_error=min(largest, np.finfo(np.float64).max),
        mean_error=min(total / max(count, 1), np.finfo(np.float64).max),
        snr_db=ratios[worst],
        agreement=min(equal, default=None),
        output=(names[worst] if names else f"output {worst}") if len(expected) > 1 else None,
    )


def _decibels(signal: float, noise: float) -> float:
    """Return a ratio that JSON can express: zeros for zeros are perfect, errors where zeros belong have no signal."""
    if noise == 0:
        return _PERFECT_DB
    ratio = signal / noise
    return -_PERFECT_DB if ratio == 0 else max(-_PERFECT_DB, min(10 * math.log10(ratio), _PERFECT_DB))
