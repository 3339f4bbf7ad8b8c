"""How artifacts and the runner get to a device, and the answer back: this machine, boards over SSH, phones over adb."""

from sekron_edge.measurement.transports._connections import Connection, connection, connections
from sekron_edge.measurement.transports.adb import AdbDevice
from sekron_edge.measurement.transports.local import LocalDevice, VectorUnits, comparable_device
from sekron_edge.measurement.transports.ssh import SshDevice

__all__ = [
    "AdbDevice",
    "Connection",
    "LocalDevice",
    "SshDevice",
    "VectorUnits",
    "comparable_device",
    "connection",
    "connections",
]
