"""Ways to devices, each known by the word before the colon of a device's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from sekron_edge.measurement._device import Device
from sekron_edge.plugins import Plugins


class DeviceSettings(BaseModel):
    """What users may set for a device, in its table of ``devices.toml``.

    Each transport has a model of its own, in which every key has a default; keys that mean the same have the same name.

    Attributes:
        emulated: Whether its times are none of a device's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    emulated: bool = False


SettingsT = TypeVar("SettingsT", bound=DeviceSettings)


@dataclass(frozen=True)
class Transport(Generic[SettingsT]):
    """A way to devices.

    Attributes:
        name: What users write before the colon: ``ssh`` of ``ssh:board``; also its entry point's name.
        settings: The model of a device's table.
        open: Makes the device of a name behind the colon, and its settings; connects to nothing yet.
        named: Whether its devices have such names. If not, there is one device, called as the transport, and ``open``
            gets an empty name and the default settings.
        client: The command that states the version of the program that it needs here; empty if none.
    """

    name: str
    settings: type[SettingsT]
    open: Callable[[str, SettingsT], Device]
    named: bool = True
    client: tuple[str, ...] = ()


_TRANSPORTS: Plugins[Transport[Any]] = Plugins("sekron_edge.transports", "transport")


def register_transport(transport: Transport[Any]) -> None:
    """Make a transport known by its name, beside those of the entry-point group ``sekron_edge.transports``.

    Raises:
        ConfigError: If the name is taken.
    """
    _TRANSPORTS.register(transport.name, transport)


def find_transport(name: str) -> Transport[Any] | None:
    """Return the transport of a name; None if there is none."""
    return _TRANSPORTS.find(name)


def known_transports() -> list[Transport[Any]]:
    """Return all known transports, by their names."""
    return _TRANSPORTS.all()
