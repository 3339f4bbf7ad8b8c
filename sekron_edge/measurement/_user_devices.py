"""How devices are reached: ``devices.toml``, the user's own file, which holds no secrets.

It has a table for each device. The transport is named only where the device is (``ssh:board``), so a table may hold the
keys of any transport; each one takes its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sekron_edge.documents import read_toml
from sekron_edge.errors import ConfigError
from sekron_edge.measurement._transports import SettingsT, Transport, known_transports

_NAME = "devices.toml"
_TABLES = TypeAdapter(dict[str, dict[str, Any]])


def user_devices() -> dict[str, dict[str, Any]]:
    """Return the tables of ``$SEKRON_EDGE_DEVICES``, or ``~/.config/sekron-edge/devices.toml``; none without a file.

    Raises:
        ConfigError: If the file cannot be read, or a key is no transport's; names the key and the nearest one.
    """
    path = _path()
    try:
        tables = _TABLES.validate_python(read_toml(path, ConfigError) if os.path.lexists(path) else {})
    except ValidationError as error:
        raise _wrong(path, error) from error
    _require_known_keys(path, tables)
    return tables


def settings_for(transport: Transport[SettingsT], device: str) -> SettingsT:
    """Return a transport's settings for a device: its keys of the device's table; all by default without one.

    Raises:
        ConfigError: If the file is not correct; names the key.
    """
    table = user_devices().get(device, {})
    own = {key: value for key, value in table.items() if key in transport.settings.model_fields}
    try:
        return transport.settings.model_validate(own)
    except ValidationError as error:
        raise _wrong(_path(), error, device) from error


def _path() -> Path:
    chosen = os.environ.get("SEKRON_EDGE_DEVICES")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(chosen) if chosen else home / "sekron-edge" / _NAME


def _require_known_keys(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    known = dict.fromkeys(key for transport in known_transports() for key in transport.settings.model_fields)
    for device, table in tables.items():
        for key in table:
            if key not in known:
                (near,) = get_close_matches(key, known, n=1, cutoff=0.0)
                raise ConfigError(f"{path}: {device}.{key}: no transport knows this key; the nearest key is {near}")


def _wrong(path: Path, error: ValidationError, *above: str) -> ConfigError:
    first = error.errors()[0]
    return ConfigError(f"{path}: {'.'.join(map(str, (*above, *first['loc'])))}: {first['msg']}")
