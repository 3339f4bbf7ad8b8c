"""What the system says about the machine this runs on: its CPU, clock, governor and temperature.

Each function answers None where the machine does not say (another operating system, a container
without ``/sys``, a virtual machine that hides its clock): what cannot be read is not guessed.
"""

from __future__ import annotations

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")
_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_HWMON = Path("/sys/class/hwmon")

_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "acpitz")

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


def cpu_model() -> str | None:
    """The name of the CPU, as ``Intel(R) Xeon(R) ...`` or ``Cortex-A76``; None where it is not said."""
    fields: dict[str, list[str]] = {}
    for line in (_text(_CPUINFO) or "").splitlines():
        key, separator, value = line.partition(":")
        if separator and value.strip():
            values = fields.setdefault(key.strip().lower(), [])
            if value.strip() not in values:
                values.append(value.strip())
    if names := fields.get("model name"):
        return names[0]
    if fields.get("cpu implementer") == ["0x41"] and "cpu part" in fields:
        parts = [_ARM_PARTS.get(int(part, 16), f"Arm part {part}") for part in fields["cpu part"]]
        return " + ".join(parts)
    board = _text(_DEVICE_TREE_MODEL)
    return board.strip("\0 \n") or None if board else None


def governor() -> str | None:
    """The frequency governor of the first CPU (``performance``, ``schedutil``, ...), or None."""
    return _text(_CPU / "cpu0/cpufreq/scaling_governor") or None


def clock_mhz() -> float | None:
    """The present clock in MHz, the fastest core's; None where the machine does not say."""
    readings = [
        value / 1000.0
        for path in sorted(_CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        if (value := _number(path)) is not None and value > 0
    ]
    if not readings:
        for line in (_text(_CPUINFO) or "").splitlines():
            key, _, value_text = line.partition(":")
            if key.strip().lower() == "cpu mhz":
                try:
                    readings.append(float(value_text))
                except ValueError:
                    continue
    return max(readings, default=None)


def temperature_celsius() -> float | None:
    """The temperature of the CPU in °C; None where no sensor of the CPU can be read."""
    for sensor in sorted(_HWMON.glob("hwmon*")):
        if _text(sensor / "name") in _CPU_SENSORS:
            readings = [value for path in sensor.glob("temp*_input") if (value := _celsius(path)) is not None]
            if readings:
                return max(readings)
    zones = {_text(zone / "type"): zone for zone in sorted(_THERMAL.glob("thermal_zone*"), reverse=True)}
    for name in _CPU_ZONES:
        if name in zones and (value := _celsius(zones[name] / "temp")) is not None:
            return value
    return None


def _text(path: Path) -> str | None:
    """The stripped text of a small file, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    """The number in a small file, or None."""
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def _celsius(path: Path) -> float | None:
    """The reading of a sensor in thousandths of a degree, if it is one that a CPU can have."""
    value = _number(path)
    if value is None or not 0 < value / 1000.0 < 150:
        return None
    return value / 1000.0
