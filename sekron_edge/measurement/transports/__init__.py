"""How artifacts and the runner get to a device, and the answer back: this machine, boards over SSH, phones over adb.

A transport of one's own that can start a Python on the device needs `measure_over_pipe` and little else.
"""

from sekron_edge.measurement.transports._android_tools import (
    AndroidExporter,
    AndroidTool,
    Readings,
    launch_count,
    runs_of_a_launch,
)
from sekron_edge.measurement.transports._pipe import BOOTSTRAP, PipeBroken, measure_over_pipe
from sekron_edge.measurement.transports.adb import AdbDevice, AdbSettings
from sekron_edge.measurement.transports.local import Contained, LocalDevice, VectorUnits, comparable_device
from sekron_edge.measurement.transports.ssh import SshDevice, SshSettings

__all__ = [
    "BOOTSTRAP",
    "AdbDevice",
    "AdbSettings",
    "AndroidExporter",
    "AndroidTool",
    "Contained",
    "LocalDevice",
    "PipeBroken",
    "Readings",
    "SshDevice",
    "SshSettings",
    "VectorUnits",
    "comparable_device",
    "launch_count",
    "measure_over_pipe",
    "runs_of_a_launch",
]
