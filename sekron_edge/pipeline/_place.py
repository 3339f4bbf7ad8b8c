"""The place where a target's artifacts are measured: this machine, a device that is reached, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from sekron_edge.devices import DeviceProfile
from sekron_edge.errors import ConfigError
from sekron_edge.measurement import Device, LocalDevice, open_device


@dataclass(frozen=True)
class Place:
    """The place where artifacts are measured for a device.

    Attributes:
        name: Of the device, as for `sekron_edge.measurement.open_device`. None where it is not reached: its latencies
            are estimates, and all measurements are made on this machine.
    """

    name: str | None

    @classmethod
    def of(cls, profile: DeviceProfile, name: str | None) -> Place:
        """Return the place for a profile's device that the user reaches under a name.

        Raises:
            ConfigError: If the name is not that of the profile's device, or nothing has that name.
        """
        if profile.kind == "host":
            if name not in (None, LocalDevice.name):
                raise ConfigError(
                    f"{profile.id} is this machine; to measure on {name}, choose the profile of that device"
                )
            return cls(LocalDevice.name)
        if name == LocalDevice.name:
            raise ConfigError(f"{profile.id} is not this machine; to measure here, choose the profile host")
        if name is not None:
            if profile.kind == "microcontroller":
                raise ConfigError(
                    f"{profile.id} is a microcontroller: nothing is measured there, its latency is estimated"
                )
            open_device(name)  # refuses a name that no device has
        return cls(name)

    @property
    def is_reached(self) -> bool:
        """Whether artifacts are measured on the device itself."""
        return self.name is not None

    @property
    def is_here(self) -> bool:
        """Whether the device is this machine."""
        return self.name == LocalDevice.name

    @property
    def is_remote(self) -> bool:
        """Whether the device is reached from here."""
        return self.is_reached and not self.is_here

    def open(self) -> Device:
        """Return the device where artifacts are measured."""
        return open_device(self.name) if self.name is not None and self.is_remote else LocalDevice()

    def __str__(self) -> str:
        return str(self.name) if self.is_remote else "this machine"
