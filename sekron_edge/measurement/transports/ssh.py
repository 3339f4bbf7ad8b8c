"""Boards over SSH, with the system's own client: configuration, agents, jump hosts and known hosts are the user's."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from pydantic import Field

from sekron_edge.errors import DeviceError, UnreachableError
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import Device
from sekron_edge.measurement._protocol import MeasurementRequest, Outcome
from sekron_edge.measurement._transports import DeviceSettings, Transport
from sekron_edge.measurement.transports._pipe import BOOTSTRAP, PipeBroken, measure_over_pipe

# Nothing is asked, no unknown key is accepted, nothing is forwarded; a connection that died is noticed.
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "RequestTTY": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
}
_CACHE = "~/.cache/sekron-edge/device"
_FAILED = 255  # ssh's own status for everything that is not the command's
_REFUSALS = (
    (
        ("has changed and you have requested strict checking",),
        "its key is not the known one: find out why; only then remove the old one with `ssh-keygen -R`",
    ),
    (("Host key verification failed",), "its key is unknown: connect once by hand, and compare the fingerprint"),
    (("Permission denied",), "it lets nobody in with the keys at hand: try `ssh` by hand; an agent may be missing"),
    (("Could not resolve",), "there is no such host: name it in ~/.ssh/config, or set host in devices.toml"),
    (("Bad configuration", "Can't open user config"), "ssh's configuration is wrong"),
)
_STATUSES = {
    126: "the Python there cannot be executed; is it for another processor? Set python in devices.toml",
    127: "there is no such Python; set python in devices.toml",
}


class SshSettings(DeviceSettings):
    """How a board is reached. What is None is left to ssh's own configuration.

    Attributes:
        host: Name or address, or a host of ``~/.ssh/config``; by default the device's name.
        user: To log in as.
        port: Of sshd.
        ssh_config: A file instead of ``~/.ssh/config``.
        python: The Python there that has numpy and the runtime: a path, or a command's words.
        cache: Folder there for what is sent; by default ``~/.cache/sekron-edge/device``.
    """

    host: str | None = None
    user: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    ssh_config: Path | None = None
    python: str | tuple[str, ...] = "python3"
    cache: str | None = None


class SshDevice(Device):
    """A board: any Linux or Mac with sshd, a Python, numpy and the artifact's runtime.

    Args:
        alias: Its name in the user's file or in ssh's configuration.
        settings: How it is reached.
    """

    def __init__(self, alias: str, settings: SshSettings) -> None:
        self.name = f"ssh:{alias}"
        self.emulated = settings.emulated
        self._alias = alias
        self._settings = settings

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        """Send the agent, the runner and the artifacts through ssh's pipe; see `Device.carry_out`."""
        if shutil.which("ssh") is None:
            raise DeviceError(f"{self.name}: there is no ssh on this machine; install OpenSSH's client")
        cache = self._settings.cache or _CACHE
        deadline = Deadline.of(request)
        try:
            return measure_over_pipe(self._command(), request, device=self.name, cache=cache, deadline=deadline)
        except PipeBroken as end:
            raise self._error(end) from end

    def _command(self) -> list[str]:
        to = self._settings
        host = to.host or self._alias
        if host.startswith("-"):
            raise DeviceError(f"{self.name}: {host!r} is no host")
        command = ["ssh", *(word for key, value in _OPTIONS.items() for word in ("-o", f"{key}={value}"))]
        command += ["-F", str(to.ssh_config.expanduser())] if to.ssh_config is not None else []
        command += ["-l", to.user] if to.user is not None else []
        command += ["-p", str(to.port)] if to.port is not None else []
        python = [to.python] if isinstance(to.python, str) else list(to.python)
        return [*command, "--", host, shlex.join([*python, "-c", BOOTSTRAP])]

    def _error(self, end: PipeBroken) -> DeviceError:
        """Say what a pipe that ended early means."""
        complaint = f"\n{end.complaint}" if end.complaint else ""
        for words, remedy in _REFUSALS:
            if end.status == _FAILED and any(word in end.complaint for word in words):
                return DeviceError(f"{self.name}: {remedy}{complaint}")
        if end.spoken:
            return UnreachableError(
                f"{self.name}: the connection was lost while it measured; is it still there?{complaint}"
            )
        if end.status == _FAILED:
            return UnreachableError(f"{self.name}: it cannot be reached; is it switched on?{complaint}")
        remedy = _STATUSES.get(end.status, "its Python did not start the measurement; it must be 3.8 or later")
        return DeviceError(f"{self.name}: {remedy} (status {end.status}){complaint}")


TRANSPORT = Transport("ssh", SshSettings, SshDevice, client=("ssh", "-V"))
