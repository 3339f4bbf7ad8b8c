"""What the files of a Linux system say about the machine: its CPU, clock, governor and temperature.

The files are read where the machine is, `READ` by `READ`; here their texts are understood. Each property is None where
the machine does not say (another operating system, a container without ``/sys``, a virtual machine that hides its
clock): what cannot be read is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sekron_edge.measurement.on_device import runner

CPUINFO = "/proc/cpuinfo"
MATRIX_UNIT = runner.MATRIX_UNIT
_ARCHITECTURE = "/proc/sys/kernel/arch"
BOARD = "/proc/device-tree/model"
_GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
_CLOCKS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
_SENSOR_NAMES = "/sys/class/hwmon/hwmon*/name"
_SENSORS = "/sys/class/hwmon/hwmon*/temp*_input"
_ZONE_TYPES = "/sys/class/thermal/thermal_zone*/type"
_ZONES = "/sys/class/thermal/thermal_zone*/temp"
_MOST_CLOCKS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
_THROTTLES = "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
_COOLER_TYPES = "/sys/class/thermal/cooling_device*/type"
_COOLERS = "/sys/class/thermal/cooling_device*/cur_state"
READ = (
    CPUINFO, _ARCHITECTURE, BOARD, _GOVERNOR, _CLOCKS, _MOST_CLOCKS, _SENSOR_NAMES, _SENSORS, _ZONE_TYPES, _ZONES,
    _THROTTLES, _COOLER_TYPES, _COOLERS,
)  # fmt: skip
THERMAL_SERVICE = "dumpsys thermalservice"  # Android's command, which says what its files may not

_X86_VENDORS = ("GenuineIntel", "AuthenticAMD")
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "mtktscpu", "BIG", "acpitz")
_CORE_ZONE = "cpu"  # what phones' zones of single cores begin with
# What Linux calls coolers that lower a CPU's clock; those of x86 are called Processor.
_CLOCK_COOLERS = ("cpufreq", "Processor")
_SERVICE_TEMPERATURE = re.compile(r"Temperature\{mValue=([\d.]+), mType=0,")  # of a CPU
_SERVICE_COOLER = re.compile(r"CoolingDevice\{mValue=(\d+), mType=2,")  # of a CPU

# The parts of Arm Ltd. (implementer 0x41) that /proc/cpuinfo names only by number.
_ARM_PARTS = {
    0xC07: "Cortex-A7",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD49: "Neoverse-N2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD4F: "Neoverse-V2",
}


@dataclass(frozen=True)
class HostInfo:
    """A machine, as the texts of its files describe it.

    Attributes:
        texts: The stripped text of each file that could be read, by its path.
    """

    texts: Mapping[str, str]

    @property
    def cpu_model(self) -> str | None:
        """The name of the CPU, as ``Intel(R) Xeon(R) ...`` or ``Cortex-A76``."""
        fields: dict[str, list[str]] = {}
        for key, value in self._cpu_fields():
            values = fields.setdefault(key, [])
            if value not in values:
                values.append(value)
        if names := fields.get("model name"):
            return f"{names[0]} without AMX" if self.texts.get(MATRIX_UNIT) == "refused" else names[0]
        if fields.get("cpu implementer") == ["0x41"] and "cpu part" in fields:
            parts = [_ARM_PARTS.get(int(part, 16), f"Arm part {part}") for part in fields["cpu part"]]
            return " + ".join(parts)
        return self.texts.get(BOARD, "").strip("\0 \n") or None

    @property
    def matrix_unit(self) -> bool:
        """Whether there is an AMX unit that whoever read the texts may use."""
        return self.texts.get(MATRIX_UNIT) == "lent"

    @property
    def is_x86(self) -> bool:
        """Whether the processor is one of Intel's or AMD's, whatever the program that asks was made for."""
        return self.texts.get(_ARCHITECTURE) == "x86_64" or any(
            key == "vendor_id" and value in ("GenuineIntel", "AuthenticAMD") for key, value in self._cpu_fields()
        )

    @property
    def governor(self) -> str | None:
        """The frequency governor of the first CPU (``performance``, ``schedutil``, ...)."""
        return self.texts.get(_GOVERNOR) or None

    @property
    def clock_mhz(self) -> float | None:
        """The clock in MHz, the fastest core's."""
        readings = [value / 1000.0 for text in self._below(_CLOCKS).values() if (value := _number(text)) > 0]
        if not readings:
            readings = [_number(value) for key, value in self._cpu_fields() if key == "cpu mhz"]
        return max((value for value in readings if value > 0), default=None)

    @property
    def big_cores(self) -> tuple[int, ...]:
        """The cores that are not of the slowest kind; none where all are of one kind, or nobody says."""
        fastest = {
            int(path.split("/")[5].removeprefix("cpu")): _number(text)
            for path, text in self._below(_MOST_CLOCKS).items()
        }
        slowest = min(fastest.values(), default=0)
        return tuple(sorted(core for core, clock in fastest.items() if clock > slowest))

    @property
    def temperature_celsius(self) -> float | None:
        """The temperature of the CPU in °C."""
        sensors = {path.rpartition("/")[0] for path, name in self._below(_SENSOR_NAMES).items() if name in _CPU_SENSORS}
        readings = [
            value
            for path, text in self._below(_SENSORS).items()
            if path.rpartition("/")[0] in sensors and (value := _celsius(text)) is not None
        ]
        if readings:
            return max(readings)
        zones = {name: path.rpartition("/")[0] for path, name in reversed(self._below(_ZONE_TYPES).items())}
        for name in _CPU_ZONES:
            if name in zones and (value := _celsius(self.texts.get(f"{zones[name]}/temp", ""))) is not None:
                return value
        cores = [self.texts.get(f"{path}/temp", "") for name, path in zones.items() if name.startswith(_CORE_ZONE)]
        own = [value for text in cores if (value := _celsius(text)) is not None]
        # Cached readings come first, those of now behind them.
        now = self.texts.get(THERMAL_SERVICE, "").rpartition("Current temperatures")[2]
        return max(own or map(float, _SERVICE_TEMPERATURE.findall(now)), default=None)

    @property
    def is_slowed(self) -> bool:
        """Whether the system holds the clock of a core down now, because something is hot."""
        coolers = [path.rpartition("/")[0] for path, name in self._below(_COOLER_TYPES).items() if _lowers_clock(name)]
        states = [self.texts.get(f"{path}/cur_state", "") for path in coolers]
        states += _SERVICE_COOLER.findall(self.texts.get(THERMAL_SERVICE, ""))
        return any(_number(state) > 0 for state in states)

    @property
    def throttles(self) -> int:
        """How often a core has lowered its clock because it was hot, since the machine started."""
        return sum(int(max(_number(text), 0)) for text in self._below(_THROTTLES).values())

    def _below(self, pattern: str) -> dict[str, str]:
        return {path: self.texts[path] for path in sorted(self.texts) if fnmatchcase(path, pattern)}

    def _cpu_fields(self) -> Iterator[tuple[str, str]]:
        for line in self.texts.get(CPUINFO, "").splitlines():
            key, _, value = line.partition(":")
            if value.strip():
                yield key.strip().lower(), value.strip()


def this_machine() -> HostInfo:
    """Return what the files of this machine say."""
    return HostInfo(runner.system_texts(READ))


def _lowers_clock(cooler: str) -> bool:
    return any(part in cooler for part in _CLOCK_COOLERS)


def _number(text: str) -> float:
    """The number that a text is, or -1."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def _celsius(text: str) -> float | None:
    """The reading of a sensor in thousandths of a degree, if it is one that a CPU can have."""
    value = _number(text) / 1000.0
    return value if 0 < value < 150 else None
