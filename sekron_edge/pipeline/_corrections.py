"""What trials teach of predictions: all of them so far, for every candidate that a later plan may choose.

A trial measures a whole plan, and what it differs by from its prediction may be the error of all structures, of one
family, or of the very structures that were chosen. All three are taken for possible, each with the size that it
usually has, and the likeliest explanation of all trials at once is applied (linear regression with normal priors). A
candidate that was tried is thus corrected most, one of another family least: the plan after a miss neither repeats the
miss nor shuns what was never at fault.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

from sekron_edge.pipeline._trials import Trial
from sekron_edge.planner import Candidate, ModelScores, Plan
from sekron_edge.structure import Structure

Floats = npt.NDArray[np.float64]

# A measured plan deviates by this much at least, relatively; and a 95 % interval is so many deviations wide.
_OF_A_TRIAL, _DEVIATIONS_WIDE = 0.01, 4
_MOST_CORRECTION = 3.0
# What a candidate may share its error with, and the deviation of that error.
_ALL, _FAMILY, _ITSELF = "all", "family", "itself"
_DEVIATIONS = {_ALL: 0.3, _FAMILY: 0.2, _ITSELF: 0.3}
Shared = tuple[str, ...] | tuple[str, Structure, float]


@dataclass(frozen=True)
class Tried:
    """A plan and what became of it."""

    plan: Plan
    trial: Trial


def corrected(scores: ModelScores, tried: Sequence[Tried]) -> ModelScores:
    """Return scores, corrected by all trials so far.

    Args:
        scores: As they were before any trial: those of the dense model are right.
        tried: At least one.
    """
    # The files of other structures may be larger, too: no limit is missed twice by the same bytes.
    extra_bytes = max(one.trial.artifact.size_bytes - _bytes(scores, one.plan) for one in tried)
    measured = [one for one in tried if one.trial.ratio is not None]
    if not measured:
        return scores.corrected(source=f"bytes as in {_plans(len(tried))}", extra_bytes=extra_bytes)
    learned = _Learned(scores, measured)
    return scores.corrected(source=learned.source, extra_bytes=extra_bytes, factor=learned.factor)


class _Learned:
    """The likeliest errors of predictions, given the trials."""

    def __init__(self, scores: ModelScores, measured: Sequence[Tried]) -> None:
        shares = [_predicted_ms(scores, one.plan) for one in measured]
        predicted = [_total_ms(scores, one.plan) for one in measured]
        # In terms of the dense model's first measurement, so that a slow moment of the machine does not count.
        found = [(one.trial.ratio or 0.0) * scores.dense.latency_ms for one in measured]
        shared = list(dict.fromkeys(key for row in shares for key in row))
        rows: Floats = np.array([[row[key] * _DEVIATIONS[key[0]] for key in shared] for row in shares])
        rows = rows.reshape(len(measured), len(shared))
        noise = np.diag([(_deviation(one.trial) * ms) ** 2 for one, ms in zip(measured, found, strict=True)])
        weights = rows.T @ np.linalg.solve(rows @ rows.T + noise, np.array(found) - np.array(predicted))
        self._errors = {key: _DEVIATIONS[key[0]] * weight for key, weight in zip(shared, weights, strict=True)}
        said = [
            f"plan {number} measured at {ms:.4g} ms, predicted at {one.plan.cost.latency_ms:.4g}"
            for number, (one, ms) in enumerate(zip(measured, found, strict=True), 1)
        ]
        self.source = "; ".join(said)

    def factor(self, candidate: Candidate) -> float:
        """Return what a candidate's time is to be multiplied by."""
        error = float(sum(self._errors.get(key, 0.0) for key in _shared(candidate)))
        return min(max(1 + error, 1 / _MOST_CORRECTION), _MOST_CORRECTION)


def _deviation(trial: Trial) -> float:
    """Return the relative deviation of a trial's ratio, as its processes scattered."""
    if trial.pair is None:
        return _OF_A_TRIAL
    low, high = trial.pair.times.interval(None)
    return max(_OF_A_TRIAL, log(high / low) / _DEVIATIONS_WIDE)


def _shared(candidate: Candidate) -> tuple[Shared, ...]:
    """Return what a candidate's error has in common with those of others; a dense layer's is known to be none."""
    if candidate.structure is None:
        return ()
    # Layers of the same shape run the same operations, and take the same time.
    return (_ALL,), (_FAMILY, candidate.family), (_ITSELF, candidate.structure, candidate.cost.latency_ms)


def _predicted_ms(scores: ModelScores, plan: Plan) -> dict[Shared, float]:
    """Return the predicted milliseconds of everything that candidates of a plan share."""
    found: dict[Shared, float] = defaultdict(float)
    for candidate in _chosen(scores, plan):
        for key in _shared(candidate):
            found[key] += candidate.cost.latency_ms
    return found


def _total_ms(scores: ModelScores, plan: Plan) -> float:
    return scores.rest.latency_ms + sum(candidate.cost.latency_ms for candidate in _chosen(scores, plan))


def _bytes(scores: ModelScores, plan: Plan) -> float:
    return scores.rest.artifact_bytes + sum(candidate.cost.artifact_bytes for candidate in _chosen(scores, plan))


def _chosen(scores: ModelScores, plan: Plan) -> list[Candidate]:
    """Return a plan's choices as they were predicted before any trial."""
    structures = plan.structures()
    return [
        next(one for one in layer.candidates if one.structure == structures.get(layer.name)) for layer in scores.layers
    ]


def _plans(count: int) -> str:
    return "plan 1" if count == 1 else f"plans 1 to {count}"
