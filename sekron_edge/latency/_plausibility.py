"""A calibration beside those that were made before on the same machine: what cannot all be true is said.

A machine that was busy all the time makes every time longer by the same, and no spread shows it. Earlier calibrations
do: of the same precision, which should take as long, and of the other one, as int8 is seldom slower than fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from sekron_edge.measurement._records import Measurement
from sekron_edge.measurement._store import Calibration, MeasurementStore
from sekron_edge.primitives import Conv, ConvTranspose, Linear, Primitive

# Of the median over all primitives, in either direction.
_LIKE_BEFORE = 1.15
# Of the convolutions and linear layers: more of them are not slower in int8 than in fp32, on any machine we know.
_SLOWER_IN_INT8 = 0.8
_FEWEST = 20


def contradictions(
    store: MeasurementStore,
    measured: Measurement,
    times: Mapping[Primitive, float],
    *,
    precision: str,
    threads: int,
) -> tuple[str, ...]:
    """Return what earlier calibrations of this machine contradict, in words.

    Args:
        store: Of calibrations; this one is not in it yet.
        measured: One of the measurements: where, and with which runtime.
        times: Milliseconds of each primitive, as they were measured.
        precision: Of the primitives.
        threads: Threads of the runtime.
    """
    alike = [one for one in store.calibrations() if _is_alike(one, measured, threads)]
    same, other = (_last(alike, wanted) for wanted in (precision, "fp32" if precision == "int8" else "int8"))
    found = []
    if same is not None:
        before = store.medians(same.id)
        ratios = [times[p] / before[p] for p in times if before.get(p)]
        ratio = median(ratios) if len(ratios) >= _FEWEST else 1.0
        if not 1 / _LIKE_BEFORE <= ratio <= _LIKE_BEFORE:
            found.append(
                f"operations took {ratio:.2f} times what they took at the calibration of {_when(same)}: the machine "
                f"was busy {'now' if ratio > 1 else 'then'}, or has changed"
            )
    if other is not None:
        fp32, int8 = (times, store.medians(other.id)) if precision == "fp32" else (store.medians(other.id), times)
        both = [p for p in times if p in fp32 and p in int8 and isinstance(p, Conv | ConvTranspose | Linear)]
        slower = sum(int8[p] > fp32[p] for p in both) / len(both) if len(both) >= _FEWEST else 0.0
        if slower > _SLOWER_IN_INT8:
            busy = "now" if precision == "int8" else f"at the calibration in int8 of {_when(other)}"
            found.append(
                f"int8 is slower than fp32 in {slower:.0%} of the convolutions and linear layers, which is seldom so: "
                f"the machine was probably busy {busy}"
            )
    return tuple(found)


def _is_alike(one: Calibration, measured: Measurement, threads: int) -> bool:
    """Say whether a calibration was made with the same runtime on the same machine."""
    where, here = one.environment, measured.environment
    return (one.runtime, one.runtime_version, one.threads, where.cpu, where.machine, where.cores) == (
        measured.runtime, measured.runtime_version, threads, here.cpu, here.machine, here.cores,
    )  # fmt: skip


def _last(calibrations: list[Calibration], precision: str) -> Calibration | None:
    return next((one for one in reversed(calibrations) if one.precision == precision), None)


def _when(calibration: Calibration) -> str:
    return f"{calibration.measured_at:%Y-%m-%d %H:%M}"
