"""A latency model: the time of a primitive from a few physical features, fitted to measurements.

    time = per-call overhead + work / throughput + traffic / bandwidth        (non-negative least squares)

One set of coefficients for each kind of operation. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.optimize import nnls

from sekron_edge.errors import DeviceError
from sekron_edge.primitives import Conv, ConvTranspose, Linear, Permute, Primitive

# Vector kernels compute whole tiles of output channels.
_TILE = 16


def kind(primitive: Primitive) -> str:
    """Return the kind of operation, each with coefficients of its own; transposed convolutions are taken for others."""
    if isinstance(primitive, Permute):
        return "permute"
    if isinstance(primitive, Linear):
        return "linear"
    if primitive.groups == 1:
        return "pointwise" if prod(primitive.kernel) == 1 else "conv"
    return "depthwise" if primitive.groups == primitive.in_shape[1] else "grouped"


def features(primitive: Primitive) -> tuple[float, ...]:
    """Return what an operation's time may depend on: call, work, gathered values, values read and written, groups."""
    gathered, groups, weights = 0.0, 0.0, 0.0
    work = float(primitive.macs)
    if isinstance(primitive, Linear):
        weights = primitive.in_features * primitive.out_features
        work *= _padded(primitive.out_features)
    elif isinstance(primitive, Conv | ConvTranspose):
        weights = prod(primitive.kernel) * primitive.in_shape[1] // primitive.groups * primitive.out_channels
        gathered = primitive.macs * primitive.groups / primitive.out_channels
        if primitive.groups == 1:
            work *= _padded(primitive.out_channels)
        elif primitive.groups < primitive.in_shape[1]:
            groups = float(primitive.groups * primitive.in_shape[0])
            work *= _padded(primitive.out_channels // primitive.groups)
    return (1.0, work, gathered, float(primitive.in_elements + primitive.out_elements), float(weights), groups)


def _padded(channels: int) -> float:
    return ceil(channels / _TILE) * _TILE / channels


class LatencyModel(BaseModel):
    """Predicts the time of primitives on one device, runtime, precision and number of threads.

    Attributes:
        source: Where the coefficients are from, for people.
        coefficients: Milliseconds a unit of each feature, by kind of operation.
        held_out_error: Median relative error on measurements that were not fitted, by kind; empty if estimated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    source: str
    coefficients: dict[str, tuple[float, ...]]
    held_out_error: dict[str, float] = {}

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        return sum(float(np.dot(self.coefficients[kind(primitive)], features(primitive))) for primitive in primitives)

    def scaled(self, factor: float, reason: str) -> LatencyModel:
        """Return a model whose every time is ``factor`` as long, and says why."""
        return self.model_copy(
            update={
                "coefficients": {key: tuple(factor * c for c in values) for key, values in self.coefficients.items()},
                "source": f"{self.source}; times {factor:.3g}: {reason}",
            }
        )

    @classmethod
    def estimated(cls, *, gmacs_per_second: float, values_per_microsecond: float, call_us: float) -> LatencyModel:
        """Make a model from three figures, for a device that nobody has measured."""
        work, traffic = 1e-6 / gmacs_per_second, 1e-3 / values_per_microsecond
        same = (call_us * 1e-3, work, 0.0, traffic, traffic, call_us * 1e-3)
        kinds = ("permute", "linear", "pointwise", "conv", "depthwise", "grouped")
        said = f"estimated: {gmacs_per_second:g} GMAC/s, {values_per_microsecond:g} values/us, {call_us:g} us a call"
        return cls(source=said, coefficients=dict.fromkeys(kinds, same))


def fit(fitted: Mapping[Primitive, float], held_out: Mapping[Primitive, float], *, source: str) -> LatencyModel:
    """Fit a latency model by non-negative least squares on relative errors.

    Args:
        fitted: Milliseconds of each primitive to fit; every kind of operation must occur.
        held_out: Those that only judge.
        source: What was measured, on what.

    Raises:
        DeviceError: If a time is not positive.
    """
    for primitive, time in [*fitted.items(), *held_out.items()]:
        if not time > 0:
            raise DeviceError(f"a measured time must be positive, got {time} ms for {primitive}; measure again")
    coefficients: dict[str, tuple[float, ...]] = {}
    errors: dict[str, float] = {}
    for name in sorted({kind(primitive) for primitive in fitted}):
        rows, times = _of_kind(fitted, name)
        scale = np.maximum(rows.max(axis=0), 1e-30)
        solution, _ = nnls(rows / scale / times[:, None], np.ones(len(times)))
        coefficients[name] = tuple(float(value) for value in solution / scale)
        if any(kind(primitive) == name for primitive in held_out):
            rows, times = _of_kind(held_out, name)
            errors[name] = float(np.median(np.abs(rows @ coefficients[name] / times - 1)))
    return LatencyModel(source=source, coefficients=coefficients, held_out_error=errors)


def _of_kind(seen: Mapping[Primitive, float], name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    own = [(primitive, time) for primitive, time in seen.items() if kind(primitive) == name]
    return np.array([features(p) for p, _ in own]), np.array([time for _, time in own])
