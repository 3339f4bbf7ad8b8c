"""Latency models: primitives timed on a device, and what is fitted to them.

Requirements kept here: a prediction says what it was fitted to, and its error on primitives that it was not; nothing
here imports torch.
"""

from sekron_edge.latency._calibration import cached_calibration, calibrate, draw_calibration
from sekron_edge.latency._model import LatencyModel
from sekron_edge.latency._reference import reference_primitives

__all__ = [
    "LatencyModel",
    "cached_calibration",
    "calibrate",
    "draw_calibration",
    "reference_primitives",
]
