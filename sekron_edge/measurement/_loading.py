"""Which class loads artifacts in the runner's process, and where that finds it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sekron_edge.artifacts import Artifact, DeviceRuntime, ExporterOrigin, device_runtime, exporter_origin
from sekron_edge.errors import ConfigError, DeviceError, UnsupportedError

# As the runtime of an exporter is called in a job's folder on a device.
RUNTIME_NAME = "device_runtime.py"
_EXPORTERS_OWN = "sekron_edge.measurement._sessions:ExporterRuntime"


@dataclass(frozen=True)
class Loader:
    """What the runner is told of the class that loads artifacts.

    Attributes:
        address: Of the class: ``FILE.py:Class`` as the runner will find the file, or ``module:Class``.
        systems: The values of ``sys.platform`` where it is any use; all if empty.
        travels: The file, here, if it has to be sent.
        described: Whether it wants the whole description of an artifact.
        origin: Where it finds the exporter, if that was registered in this process.
    """

    address: str
    systems: tuple[str, ...] = ()
    travels: Path | None = None
    described: bool = False
    origin: ExporterOrigin | None = None

    def told(self, artifact: Artifact, path: str) -> dict[str, Any]:
        """Return what a job's item says of it, for an artifact that will be at ``path``."""
        described = artifact.model_copy(update={"path": Path(path)})
        return {
            "loader": self.address,
            "systems": list(self.systems),
            "described": described.model_dump(mode="json") if self.described else None,
            "origin": None if self.origin is None else self.origin.model_dump(mode="json"),
        }


def loader_here(format: str, *, device: str, names: str) -> Loader:
    """Return what loads artifacts of a format on this machine: what would on a device, or the exporter's own sessions.

    Args:
        format: Of the artifacts.
        device: For messages.
        names: For messages: the artifacts'.

    Raises:
        UnsupportedError: If no exporter has the format.
        DeviceError: If the runner's process cannot find the exporter.
    """
    runtime = _device_runtime(format, device, names)
    if runtime is not None and runtime.runs_here:
        return Loader(f"{runtime.source.resolve()}:{runtime.name}")
    try:
        return Loader(_EXPORTERS_OWN, described=True, origin=exporter_origin(format))
    except ConfigError as error:
        raise DeviceError(f"{device}: {names} cannot be measured: {error}") from error


def loader_elsewhere(format: str, *, device: str, names: str) -> Loader:
    """Return what loads artifacts of a format on a device that files are sent to; see `loader_here`.

    Raises:
        UnsupportedError: If no exporter has the format, or it brings no runtime for devices.
    """
    runtime = _device_runtime(format, device, names)
    if runtime is None:
        raise UnsupportedError(
            f"{device}: {names} cannot be measured there: the exporter of {format} brings no runtime for devices; "
            "measure it elsewhere"
        )
    return Loader(f"{RUNTIME_NAME}:{runtime.name}", runtime.systems, travels=runtime.source)


def _device_runtime(format: str, device: str, names: str) -> DeviceRuntime | None:
    try:
        return device_runtime(format)
    except ConfigError as error:
        raise UnsupportedError(f"{device}: {names} cannot be measured: {error}") from error
