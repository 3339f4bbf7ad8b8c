"""How artifacts and the runner get to a device, and the answer back: this machine, boards over SSH, phones over adb.

A transport of one's own that can start a Python on the device needs `measure_over_pipe` and little else.
"""

from sekron_edge.measurement.transports._pipe import BOOTSTRAP, PipeBroken, measure_over_pipe
from sekron_edge.measurement.transports.adb import AdbDevice, AdbSettings
from sekron_edge.measurement.transports.local import LocalDevice, VectorUnits, comparable_device
from sekron_edge.measurement.transports.ssh import SshDevice, SshSettings

__all__ = [
    "BOOTSTRAP",
    "AdbDevice",
    "AdbSettings",
    "LocalDevice",
    "PipeBroken",
    "SshDevice",
    "SshSettings",
    "VectorUnits",
    "comparable_device",
    "measure_over_pipe",
]
