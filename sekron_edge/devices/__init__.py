"""Devices: what is known of them, how artifacts are measured on them, and latency models made from that.

Requirements kept here: a figure says whether it was measured, and on what, or is estimated; a measurement runs in a
process of its own; nothing here imports torch.
"""

from sekron_edge.devices._calibration import cached_calibration, calibrate, draw_calibration
from sekron_edge.devices._comparison import LatencyComparison, compare_latencies
from sekron_edge.devices._connections import connections
from sekron_edge.devices._device import Device
from sekron_edge.devices._fit import require_fit
from sekron_edge.devices._fleet import Conditions, Failure, MeasurementReport, Probe, measure_fleet
from sekron_edge.devices._hostinfo import this_machine
from sekron_edge.devices._latency import LatencyModel
from sekron_edge.devices._local import LocalDevice, VectorUnits, comparable_device
from sekron_edge.devices._matrix_unit import refuse_matrix_unit
from sekron_edge.devices._measurement import ComputeUnits, Environment, Measurement, OperatorTime
from sekron_edge.devices._microcontroller import (
    CYCLES_PER_MAC,
    CyclesPerMac,
    Footprint,
    cycles_per_mac,
    footprint,
    microcontroller_latency,
)
from sekron_edge.devices._named import measure, open_device
from sekron_edge.devices._profile import DeviceProfile, Fact, load_profile, profile_ids
from sekron_edge.devices._reference import reference_primitives
from sekron_edge.devices._store import Kept, MeasurementStore

__all__ = [
    "CYCLES_PER_MAC",
    "ComputeUnits",
    "Conditions",
    "CyclesPerMac",
    "Device",
    "DeviceProfile",
    "Environment",
    "Fact",
    "Failure",
    "Footprint",
    "Kept",
    "LatencyComparison",
    "LatencyModel",
    "LocalDevice",
    "Measurement",
    "MeasurementReport",
    "MeasurementStore",
    "OperatorTime",
    "Probe",
    "VectorUnits",
    "cached_calibration",
    "calibrate",
    "comparable_device",
    "compare_latencies",
    "connections",
    "cycles_per_mac",
    "draw_calibration",
    "footprint",
    "load_profile",
    "measure",
    "measure_fleet",
    "microcontroller_latency",
    "open_device",
    "profile_ids",
    "reference_primitives",
    "refuse_matrix_unit",
    "require_fit",
    "this_machine",
]
