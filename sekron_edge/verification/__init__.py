"""Proof that an artifact computes what its PyTorch model computes, on real inputs and on noise."""

from sekron_edge.verification._comparison import TOLERANCES, Check, Comparison, MetricPair, Tolerance, compare
from sekron_edge.verification._noise import noise_like
from sekron_edge.verification._verify import score_artifact, verify

__all__ = [
    "TOLERANCES",
    "Check",
    "Comparison",
    "MetricPair",
    "Tolerance",
    "compare",
    "noise_like",
    "score_artifact",
    "verify",
]
