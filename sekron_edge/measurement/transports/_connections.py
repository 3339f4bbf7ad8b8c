"""How devices are reached: ``devices.toml``, the user's own file, which holds no secrets."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sekron_edge.errors import ConfigError

_NAME = "devices.toml"


class Connection(BaseModel):
    """How one device is reached. What is None is left to ssh's own configuration.

    Attributes:
        host: Name or address, or a host of ``~/.ssh/config``; on Android the serial number; by default the device's
            name.
        user: To log in as.
        port: Of sshd.
        ssh_config: A file instead of ``~/.ssh/config``.
        python: The Python there that has numpy and the runtime: a path, or a command's words.
        cache: Folder there for what is sent; by default ``~/.cache/sekron-edge/device``. On Android it must exist, and
            is ``/data/local/tmp`` by default.
        emulated: Whether its times are none of a device's.
        binaries: Paths here of ``benchmark_model`` and ``executor_runner`` for Android, by their names.
        cool_celsius: On Android, wait until the device is no hotter than this.
        etdump: On Android, the folder here that ExecuTorch's traces are put into.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str | None = None
    user: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    ssh_config: Path | None = None
    python: str | tuple[str, ...] = "python3"
    cache: str | None = None
    emulated: bool = False
    binaries: Mapping[str, Path] = {}
    cool_celsius: float | None = None
    etdump: Path | None = None


def connections_path() -> Path:
    """Return where the file is: ``$SEKRON_EDGE_DEVICES``, or ``~/.config/sekron-edge/devices.toml``."""
    chosen = os.environ.get("SEKRON_EDGE_DEVICES")
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(chosen) if chosen else home / "sekron-edge" / _NAME


def connection(name: str) -> Connection:
    """Return how a device is reached: its table of the user's file; all by default where there is none.

    Raises:
        ConfigError: If the file is not correct; names the key.
    """
    return connections().get(name, Connection())


def connections() -> dict[str, Connection]:
    """Return all tables of the user's file, none where there is no such file.

    Raises:
        ConfigError: If the file is not correct; names the key.
    """
    path = connections_path()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, Connection]).validate_python(tables)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][-1])
        near = get_close_matches(key, Connection.model_fields, n=1, cutoff=0.0)
        meant = f"; the nearest key is {near[0]}" if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}{meant}") from error
