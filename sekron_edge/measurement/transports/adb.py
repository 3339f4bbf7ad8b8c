"""Android devices over adb: LiteRT's and ExecuTorch's own programs, on the big cores, when the device is cool.

A folder there holds one measurement. It is removed at the end; should the connection break, a guard that was left there
kills what runs and removes it when the time is up.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from sekron_edge.artifacts import Exporter, all_exporters
from sekron_edge.errors import DeviceError, UnreachableError, UnsupportedError
from sekron_edge.measurement import _hostinfo
from sekron_edge.measurement._deadline import Deadline
from sekron_edge.measurement._device import Device
from sekron_edge.measurement._hostinfo import HostInfo
from sekron_edge.measurement._protocol import Answer, MeasurementRequest, Outcome, require_possible
from sekron_edge.measurement._transports import DeviceSettings, Transport
from sekron_edge.measurement.transports._adb_client import Adb, shown
from sekron_edge.measurement.transports._adb_workspace import Workspace
from sekron_edge.measurement.transports._android_tools import AndroidExporter, AndroidTool

_ABOVE = "/data/local/tmp"
_NAME = "sekron-edge"  # what has this name there is ours to remove
_COOLING_POLL_S = 5.0
_CLEANING_S = 5.0
_BUSY = 75


class AdbSettings(DeviceSettings):
    """How an Android device is reached.

    Attributes:
        host: Its serial number; by default its name.
        cache: Folder there for what is sent, which must exist; ``/data/local/tmp`` by default.
        binaries: Paths here of the programs that time artifacts there, by their names.
        cool_celsius: Wait until the device is no hotter than this.
        etdump: Folder here that ExecuTorch's traces are put into.
    """

    host: str | None = None
    cache: str | None = None
    binaries: Mapping[str, Path] = {}
    cool_celsius: float | None = None
    etdump: Path | None = None


class AdbDevice(Device):
    """An Android device with USB debugging, or any other that the adb client reaches.

    Args:
        alias: Its name in the user's file, or its serial number.
        settings: How it is reached, and where the programs are that time artifacts.
    """

    def __init__(self, alias: str, settings: AdbSettings) -> None:
        self.name = f"adb:{alias}"
        self.emulated = settings.emulated
        self._settings = settings
        self._serial = settings.host or alias

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        """Send artifacts and a program that times them, and read what it prints; see `Device.carry_out`."""
        tool, program = self._tool(request)
        deadline = Deadline.of(request)
        adb = Adb(self._serial, self.name, deadline, lambda: deadline.missed(self.name, request))
        folder = f"{self._settings.cache or _ABOVE}/{_NAME}"
        with _folder(adb, folder):
            before = self._cooled(adb)
            cores = request.conditions.affinity or HostInfo(before).big_cores
            workspace = Workspace(adb, folder, tool, program, request, cores)
            started = time.monotonic()
            if request.timed == "computation":
                timings, outputs = workspace.time_in_turn(), []
            else:
                traces = self._settings.etdump if tool.traces else None
                measured = [workspace.measure(index, traces) for index in range(len(request.artifacts))]
                timings, outputs = [timing for timing, _ in measured], [values for _, values in measured]
            elapsed = time.monotonic() - started
            after = _texts(adb)
            machine, _, system = adb.require("uname -m; uname -sr").strip().partition("\n")
        try:
            answer = Answer(
                token=request.token,
                machine=machine,
                system=system,
                python=None,
                cores=before[_hostinfo.CPUINFO].count("processor\t") or None,
                affinity=None,
                pinned=cores,
                elapsed_s=elapsed,
                before=before,
                after=after,
                timings=tuple(timings),
            )
        except ValidationError as error:
            raise DeviceError(f"{self.name}: what it says of itself is no answer: {shown(machine)}") from error
        require_possible(request, answer, seconds=elapsed, device=self.name)
        return Outcome(answer, tuple(outputs))

    def _tool(self, request: MeasurementRequest) -> tuple[AndroidTool, Path]:
        """Return what times the request's artifacts, which are of one format, and where it is."""
        exporters = {exporter.name: exporter for exporter in all_exporters()}
        exporter = exporters.get(request.artifacts[0].format)
        tool = None if exporter is None else _android_tool(exporter)
        if tool is None:
            able = [name for name, exporter in exporters.items() if _android_tool(exporter) is not None]
            raise UnsupportedError(
                f"{self.name}: {request.names} cannot be measured over adb, where {', '.join(able)} can"
            )
        program = self._settings.binaries.get(tool.name)
        if program is None or not program.expanduser().is_file():
            raise DeviceError(
                f"{self.name}: {tool.name} is needed, and is not at {program}: name its path in devices.toml, as "
                f'binaries = {{ {tool.name} = "..." }}; docs/measuring.md says where to get it'
            )
        return tool, program.expanduser()

    def _cooled(self, adb: Adb) -> dict[str, str]:
        """Wait until the device is cool enough, if that was asked for; return its texts."""
        limit = self._settings.cool_celsius
        while True:
            texts = _texts(adb)
            temperature = HostInfo(texts).temperature_celsius
            if limit is None or (temperature is not None and temperature <= limit):
                return texts
            if temperature is None:
                raise DeviceError(
                    f"{self.name}: it does not say how hot it is, and was to be no hotter than {limit:g} °C; leave "
                    "cool_celsius out, and let it cool by hand"
                )
            if adb.deadline.left < adb.deadline.seconds / 2:
                raise DeviceError(
                    f"{self.name}: it is still at {temperature:g} °C after {adb.deadline.passed:.0f} s, and was to be "
                    f"no hotter than {limit:g}; let it cool, or raise cool_celsius"
                )
            time.sleep(min(_COOLING_POLL_S, adb.deadline.seconds / 10))


def _android_tool(exporter: Exporter) -> AndroidTool | None:
    return exporter.android_tool if isinstance(exporter, AndroidExporter) else None


@contextmanager
def _folder(adb: Adb, folder: str) -> Iterator[None]:
    """Make the folder of a measurement, with a guard that ends it should nobody come back; both go at the end.

    Raises:
        UnreachableError: If another measurement's guard is there.
    """
    quoted = shlex.quote(folder)
    end = f"kill -9 -$(cat {quoted}/group); rm -rf {quoted}"
    guard = f"sleep {round(adb.deadline.seconds + _CLEANING_S)}; {end}"
    status, printed = adb.shell(
        f"(mkdir {quoted} 2>/dev/null || {{ kill -0 $(cat {quoted}/guard) 2>/dev/null && exit {_BUSY}; "
        f"rm -rf {quoted}; mkdir {quoted}; }} && cd {quoted} && "
        f"{{ setsid sh -c {shlex.quote(guard)} >/dev/null 2>&1 </dev/null & echo $! > guard; }})"
    )
    if status == _BUSY:
        raise UnreachableError(f"{adb.device}: another measurement runs there")
    if status:
        raise DeviceError(f"{adb.device}: a folder for the job cannot be made there: {shown(printed)}")
    try:
        yield
    finally:
        last = Adb(adb.serial, adb.device, Deadline(_CLEANING_S), adb.missed)
        with suppress(DeviceError):  # the device has gone: its guard cleans up
            last.shell(f"kill -9 -$(cat {quoted}/guard); {end}")


def _texts(adb: Adb) -> dict[str, str]:
    """Read the small files that say how the device is."""
    mark = "sekron-edge-file:"
    script = f'for f in {" ".join(_hostinfo.READ)}; do [ -r "$f" ] && echo "{mark}$f" && cat "$f"; done; true'
    texts: dict[str, str] = {}
    for block in adb.require(script).split(mark)[1:]:
        path, _, text = block.partition("\n")
        texts[path] = text.strip("\0 \n")
    texts.setdefault(_hostinfo.CPUINFO, "")
    status, printed = adb.shell(_hostinfo.THERMAL_SERVICE)
    if not status:
        texts[_hostinfo.THERMAL_SERVICE] = printed
    # A device that has no name among its files has one among its properties.
    if HostInfo(texts).cpu_model is None:
        status, printed = adb.shell(
            "getprop ro.product.manufacturer && getprop ro.product.model && getprop ro.soc.model"
        )
        if not status:
            texts[_hostinfo.BOARD] = re.sub(r"\s+", " ", printed).strip()
    return texts


TRANSPORT = Transport("adb", AdbSettings, AdbDevice, client=("adb", "--version"))
