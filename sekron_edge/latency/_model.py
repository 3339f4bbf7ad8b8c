"""A latency model: the time of a primitive from a few physical features, fitted to measurements.

    time = call + work / throughput + tiles begun + traffic / bandwidth + ...        (non-negative least squares)

One set of coefficients, and one tile, for each kind of operation. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy.optimize import nnls

from sekron_edge.errors import DeviceError
from sekron_edge.latency._features import Tile, features, kind
from sekron_edge.primitives import Primitive

Floats = npt.NDArray[np.float64]

# Tiles of vector units, and of matrix units (AMX, in int8), which take as long for 16 channels as for 64.
_PRODUCT_TILES = tuple(
    Tile(rows=rows, columns=columns, depth=depth)
    for rows, columns, depth in product((1, 4, 7, 14, 16), (4, 8, 16, 32, 64), (1, 4, 8, 64))
)
_TILES: dict[str, tuple[Tile, ...]] = {
    **dict.fromkeys(
        ("permute", "reshape", "add", "clip", "curve", "max pool", "mean pool", "global mean", "copy"), (Tile(),)
    ),
    "depthwise": tuple(Tile(columns=columns) for columns in (4, 8, 16, 32)),
    "large depthwise": (Tile(columns=4),),
    **dict.fromkeys(("linear", "pointwise", "conv", "grouped"), _PRODUCT_TILES),
}
# Below this, relative errors say little: a model's time is a sum.
_SHORT_MS = 3e-4
# Residuals below this count by their square, above it by their size: a few odd kernels must not distort the rest.
_ROBUST = 0.03
_ROUNDS = 6


class Coefficients(BaseModel):
    """The coefficients of one kind of operation.

    Attributes:
        tile: The part that the kernel computes at once.
        milliseconds: Time of one unit of each of `features`.
        median_error: Relative, on measurements that were not fitted; None if there were none.
        p90_error: The 90th percentile of the same errors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tile: Tile = Tile()
    milliseconds: tuple[float, ...]
    median_error: float | None = None
    p90_error: float | None = None


class LatencyModel(BaseModel):
    """Predicts the time of primitives on one device, runtime, precision and number of threads.

    Attributes:
        source: Where the coefficients come from, for people.
        precision: Precision of the values, on which traffic depends.
        kinds: Coefficients by kind of operation.
        doubts: Why its times may be wrong, in words: the machine was busy, or earlier calibrations contradict it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 2
    source: str
    precision: str = "fp32"
    kinds: dict[str, Coefficients]
    doubts: tuple[str, ...] = ()

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        total = 0.0
        for primitive in primitives:
            own = self.kinds[kind(primitive)]
            total += float(np.dot(own.milliseconds, features(primitive, own.tile, self.precision)))
        return total

    def scaled(self, factor: float, reason: str) -> LatencyModel:
        """Return a model whose times are multiplied by ``factor``; its source gives the reason."""
        kinds = {
            name: own.model_copy(update={"milliseconds": tuple(factor * value for value in own.milliseconds)})
            for name, own in self.kinds.items()
        }
        return self.model_copy(update={"kinds": kinds, "source": f"{self.source}; times {factor:.3g}: {reason}"})

    @classmethod
    def estimated(cls, *, gmacs_per_second: float, values_per_microsecond: float, call_us: float) -> LatencyModel:
        """Make a model from three figures, for a device that nobody has measured."""
        call, work, traffic = call_us * 1e-3, 1e-6 / gmacs_per_second, 1e-3 / values_per_microsecond
        # In the order of `features`.
        of_product = Coefficients(milliseconds=(call, work, 0, 0, 0, 0, 0, call, traffic, traffic, 0, 0, 0, 0))
        depthwise = Coefficients(milliseconds=(call, work, 0, 0, 0, traffic, 0, 0))
        kinds = dict.fromkeys(_TILES, of_product) | dict.fromkeys(("depthwise", "large depthwise"), depthwise)
        kinds |= dict.fromkeys(("add", "clip", "curve"), Coefficients(milliseconds=(call, traffic, 0, 0)))
        pool = Coefficients(milliseconds=(call, traffic, 0, 0, traffic, 0))
        kinds |= dict.fromkeys(("max pool", "mean pool", "global mean"), pool)
        kinds["copy"] = Coefficients(milliseconds=(call, 0, traffic, 0))
        kinds["permute"] = Coefficients(milliseconds=(call, 2 * traffic, 0, 0, 0, 0))
        kinds["reshape"] = Coefficients(milliseconds=(call, 2 * traffic, 0, 0, 2 * traffic, 0, 0, 0))
        said = f"estimated: {gmacs_per_second:g} GMAC/s, {values_per_microsecond:g} values/us, {call_us:g} us a call"
        return cls(source=said, kinds=kinds)


def fit(
    fitted: Mapping[Primitive, float], held_out: Mapping[Primitive, float], *, source: str, precision: str = "fp32"
) -> LatencyModel:
    """Fit a latency model by robust non-negative least squares on relative errors.

    Kernels are known to have certain tiles; the tile that explains the fitted measurements best is taken.

    Args:
        fitted: Milliseconds of each primitive to fit; every kind of operation must occur.
        held_out: Milliseconds of primitives that only judge the fit.
        source: What was measured, and where.
        precision: Of the measurements.

    Raises:
        DeviceError: If a time is not positive.
    """
    for primitive, time in [*fitted.items(), *held_out.items()]:
        if not time > 0:
            raise DeviceError(f"a measured time must be positive, got {time} ms for {primitive}; measure again")
    kinds = {}
    for name in sorted({kind(primitive) for primitive in fitted}):
        own = {p: time for p, time in fitted.items() if kind(p) == name}
        times = np.array(list(own.values()))
        solutions = [(*_solved(_rows(own, tile, precision), times), tile) for tile in _TILES[name]]
        _, coefficients, tile = min(solutions, key=lambda each: each[0])
        best = Coefficients(tile=tile, milliseconds=tuple(map(float, coefficients)))
        judged = {p: time for p, time in held_out.items() if kind(p) == name}
        if judged:
            predicted = _rows(judged, tile, precision) @ coefficients
            median, p90 = np.quantile(np.abs(predicted / np.array(list(judged.values())) - 1), [0.5, 0.9])
            best = best.model_copy(update={"median_error": float(median), "p90_error": float(p90)})
        kinds[name] = best
    return LatencyModel(source=source, precision=precision, kinds=kinds)


def _rows(primitives: Iterable[Primitive], tile: Tile, precision: str) -> Floats:
    return np.array([features(primitive, tile, precision) for primitive in primitives])


def _solved(rows: Floats, times: Floats) -> tuple[float, Floats]:
    """Return the mean relative error and the coefficients."""
    scale = np.maximum(rows.max(axis=0), 1e-30)
    by = times + _SHORT_MS
    system, wanted = rows / scale / by[:, None], times / by
    weights = np.ones(len(times))
    for _ in range(_ROUNDS):
        solution, _ = nnls(system * weights[:, None], wanted * weights)
        residuals = np.abs(system @ solution - wanted)
        weights = 1 / np.sqrt(np.maximum(residuals, _ROBUST))
    return float(residuals.mean()), solution / scale
