"""Comparing two measurements: refused where more than one thing differs, since a ratio would not say which matters."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from sekron_edge.errors import ConfigError
from sekron_edge.measurement._records import Measurement

# What may differ: how it is called, and what of a measurement decides it.
_CONDITIONS: tuple[tuple[str, Callable[[Measurement], object]], ...] = (
    ("artifact", lambda m: m.artifact_sha256),
    ("device", lambda m: (m.device, m.environment.cpu, m.environment.machine)),
    ("governor", lambda m: (m.device, m.environment.governor)),
    ("runtime", lambda m: (m.runtime, m.runtime_version)),
    ("threads", lambda m: (m.threads, m.affinity)),
    ("compute units", lambda m: m.compute_units),
    ("what is timed", lambda m: (m.timed, m.averaged > 1)),
)


class LatencyComparison(BaseModel):
    """Two measurements that differ in one thing at most.

    Attributes:
        first, second: What is compared.
        differs: What differs; None for two measurements of the same.
        ratio: Of the medians, the second over the first.
        doubts: Why the ratio should not be quoted; it may be if there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Measurement
    second: Measurement
    differs: str | None
    ratio: float
    doubts: tuple[str, ...]

    def __str__(self) -> str:
        subject = "the same, measured twice" if self.differs is None else f"they differ in: {self.differs}"
        doubts = "".join(f"\nnot to be quoted: {doubt}" for doubt in self.doubts)
        return f"{self.second.median_ms:.4g} ms / {self.first.median_ms:.4g} ms = {self.ratio:.3g}; {subject}{doubts}"


def compare_latencies(first: Measurement, second: Measurement) -> LatencyComparison:
    """Compare two measurements.

    Raises:
        ConfigError: If they differ in more than one thing; names all.
    """
    differing = _differing(first, second)
    if len(differing) > 1:
        raise ConfigError(
            f"the measurements differ in {', '.join(differing)}: their ratio would not say which of them matters; "
            "measure again, with one difference"
        )
    doubts = [f"{m.artifact_name} on {m.device}: {remark}" for m in (first, second) for remark in m.remarks]
    return LatencyComparison(
        first=first,
        second=second,
        differs=differing[0] if differing else None,
        ratio=second.median_ms / first.median_ms,
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _differing(first: Measurement, second: Measurement) -> list[str]:
    differing = [name for name, condition in _CONDITIONS if condition(first) != condition(second)]
    # What another format, or another device, brings with it is no difference of its own.
    brought = {"runtime", "compute units"} if first.format != second.format else set()
    brought |= {"governor"} if "device" in differing else set()
    return [name for name in differing if name not in brought]
