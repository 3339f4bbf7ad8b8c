"""Measuring artifacts where they run: what is asked and answered, how it gets there, and what was ever measured.

Requirements kept here: a measurement runs in a process of its own, and says where and under which conditions it was
made; whatever goes wrong, nothing is left on a device; nothing here imports torch.
"""

from sekron_edge.measurement._comparison import LatencyComparison, compare_latencies
from sekron_edge.measurement._conditions import Conditions
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import Device, OutputCheck
from sekron_edge.measurement._fleet import Failure, MeasurementReport, Probe, Retries, measure_fleet
from sekron_edge.measurement._hostinfo import this_machine
from sekron_edge.measurement._named import measure, open_device
from sekron_edge.measurement._pairs import MeasuredPair, PairTimes, measure_pair
from sekron_edge.measurement._protocol import Answer, MeasurementRequest, Outcome, Timing
from sekron_edge.measurement._records import ComputeUnits, Environment, Footprint, Load, Measurement, OperatorTime
from sekron_edge.measurement._store import Kept, MeasurementStore
from sekron_edge.measurement._transports import DeviceSettings, Transport, known_transports, register_transport
from sekron_edge.measurement._user_devices import user_devices
from sekron_edge.measurement.on_device.matrix_unit import refuse_matrix_unit
from sekron_edge.measurement.transports import (
    AndroidExporter,
    AndroidTool,
    Contained,
    LocalDevice,
    Readings,
    VectorUnits,
    comparable_device,
)

__all__ = [
    "AndroidExporter",
    "AndroidTool",
    "Answer",
    "ComputeUnits",
    "Conditions",
    "Contained",
    "Deadline",
    "Device",
    "DeviceSettings",
    "Environment",
    "Failure",
    "Footprint",
    "Kept",
    "LatencyComparison",
    "Load",
    "LocalDevice",
    "MeasuredPair",
    "Measurement",
    "MeasurementReport",
    "MeasurementRequest",
    "MeasurementStore",
    "OperatorTime",
    "Outcome",
    "OutputCheck",
    "PairTimes",
    "Probe",
    "Readings",
    "Retries",
    "Timing",
    "Transport",
    "VectorUnits",
    "comparable_device",
    "compare_latencies",
    "known_transports",
    "measure",
    "measure_fleet",
    "measure_pair",
    "open_device",
    "refuse_matrix_unit",
    "register_transport",
    "this_machine",
    "user_devices",
]
