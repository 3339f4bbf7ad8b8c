"""Measurements that nobody made, for tests of what is concluded from them."""

from datetime import UTC, datetime
from typing import Any

from sekron_edge.measurement import Environment, Measurement


def measured(median_ms: float, **figures: Any) -> Measurement:
    """Return a measurement of a calm machine; ``figures`` replace what it says."""
    known = {
        "artifact_sha256": "0", "format": "litert", "precision": "fp32", "device": "simulated", "runtime": "LiteRT",
        "runtime_version": "2", "threads": 1, "warmup": 1, "runs": 50, "median_ms": median_ms, "p90_ms": median_ms,
        "iqr_ms": 0.0, "min_ms": median_ms, "peak_memory_bytes": None, "stable": True,
        "measured_at": datetime(2026, 11, 30, tzinfo=UTC), "environment": Environment(machine="x86_64", system="Linux"),
    }  # fmt: skip
    return Measurement.model_validate({**known, **figures})
