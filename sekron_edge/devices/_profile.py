"""Device profiles: the known facts about a device, each with its unit, its provenance and its source.

A profile is a TOML file; those that come with the package are named by id. Anything wrong with one is a single
`ProfileError` that names the file, the key, and the key or the units that would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import psutil
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from sekron_edge.arguments import require
from sekron_edge.documents import read_toml
from sekron_edge.errors import ProfileError
from sekron_edge.measurement import _hostinfo

Provenance = Literal["datasheet", "measured", "estimated", "recalled", "unknown"]
Value = TypeVar("Value", int, float, str)

# The first unit of each quantity is the one that a profile holds; the numbers convert to it.
_MEMORY = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_CLOCK = {"MHz": 1, "GHz": 1000}
_CORES = {"cores": 1}
_BANDWIDTH = {"GB/s": 1}
_RATE = {"TOPS": 1}
_LATENCY = {"ms": 1}

_PACKAGE = "sekron_edge.profiles"
_SUFFIX = ".toml"
_LONGEST_REPR = 60
_LIMIT = 2**63  # JSON readers and databases hold smaller whole numbers


class Fact(BaseModel, Generic[Value]):
    """One fact about a device.

    Attributes:
        value: In ``unit``; None exactly where the provenance is ``unknown``.
        unit: The only unit that profiles hold this fact in; empty for a name.
        provenance: ``datasheet`` (the maker's documents, or a text that repeats them), ``measured``, ``estimated``,
            ``recalled`` (a maker's figure that was not read again), or ``unknown``.
        source: Where the value comes from: an address, or how it was estimated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    value: Value | None = None
    unit: str = ""
    provenance: Provenance
    source: str = ""

    @model_validator(mode="after")
    def _is_sourced(self) -> Self:
        if self.provenance == "unknown":
            if self.value is not None:
                raise _problem("value", 'a fact of provenance "unknown" has no value; say where the value is from')
        elif self.value is None or self.value == "":
            raise _problem(
                "value", f'missing; a fact without a value has the provenance "unknown", not {self.provenance!r}'
            )
        elif not self.source.strip():
            raise _problem("source", f"missing; every value of provenance {self.provenance!r} needs one")
        return self

    def __str__(self) -> str:
        if self.value is None:
            return "unknown"
        if isinstance(self.value, str):
            return self.value
        if self.unit == "bytes":
            return _readable_bytes(int(self.value))
        return f"{self.value:g} {'core' if self.value == 1 and self.unit == 'cores' else self.unit}"


def _quantity(units: Mapping[str, int], *, whole: bool = False) -> BeforeValidator:
    """A validator that checks a fact's unit and converts its value to the first of ``units``."""
    held = next(iter(units))

    def convert(given: Any) -> Any:
        if isinstance(given, Fact):
            given = given.model_dump()
        if not isinstance(given, Mapping):
            return given
        unit, value = given.get("unit", ""), given.get("value")
        if unit == "" and value is None:
            return given
        if unit not in tuple(units):
            said = f"{unit!r} is not a unit of this fact" if unit else "missing"
            raise _problem("unit", f"{said}; allowed: {', '.join(units)}")
        # pydantic refuses a value that is not a number.
        if isinstance(value, int | float) and not isinstance(value, bool):
            factor = units[unit]
            value = value * factor
            if not 0 < value < _LIMIT:
                raise _problem("value", f"must be a positive, finite number, not {_shortened(given['value'])}")
            if whole and (factor > 1 or value == int(value)):
                value = round(value)
        return {**given, "value": value, "unit": held}

    return BeforeValidator(convert)


def _without_unit(given: Any) -> Any:
    if isinstance(given, Mapping) and given.get("unit", "") != "":
        raise _problem("unit", f"this fact is a name and has no unit; remove unit = {given['unit']!r}")
    return given


Bytes = Annotated[Fact[int], _quantity(_MEMORY, whole=True)]
Cores = Annotated[Fact[int], _quantity(_CORES, whole=True)]
Clock = Annotated[Fact[float], _quantity(_CLOCK)]
Bandwidth = Annotated[Fact[float], _quantity(_BANDWIDTH)]
Rate = Annotated[Fact[float], _quantity(_RATE)]
Latency = Annotated[Fact[float], _quantity(_LATENCY)]
Name = Annotated[Fact[str], BeforeValidator(_without_unit)]


class Facts(BaseModel):
    """The known facts about a device. A fact that is None was not stated: it may not apply to the device.

    Attributes:
        cpu: The system on chip and its cores, as text.
        cores: Number of CPU cores.
        clock: Of the fastest core, in MHz.
        ram: Main memory, in bytes.
        usable_ram: Memory that one application or one model can count on, in bytes.
        storage: In bytes.
        sram: Memory on a microcontroller's chip, in bytes.
        flash: A microcontroller's program memory, in bytes.
        memory_bandwidth: In GB/s.
        gpu: Name of the GPU.
        npu: Name of the neural accelerator.
        npu_rate: Its peak rate, in TOPS as its maker counts them.
        mobilenet_v1: Latency of MobileNetV1 1.0 at 224x224 in float32 on one CPU thread, in ms. Latencies are
            estimated from it where nobody has measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Name | None = None
    cores: Cores | None = None
    clock: Clock | None = None
    ram: Bytes | None = None
    usable_ram: Bytes | None = None
    storage: Bytes | None = None
    sram: Bytes | None = None
    flash: Bytes | None = None
    memory_bandwidth: Bandwidth | None = None
    gpu: Name | None = None
    npu: Name | None = None
    npu_rate: Rate | None = None
    mobilenet_v1: Latency | None = None


class DeviceProfile(BaseModel):
    """A device: the formats that run there, and the facts about it.

    Attributes:
        id: Its name on the command line: lower-case letters, digits and hyphens.
        name: Its name for people.
        kind: ``host`` is the machine this runs on; the facts that its file does not state are read from it.
        runtime: The format that is exported for it unless another one is named.
        formats: Every format that runs there.
        threads: Threads that a measurement uses by default; a setting, not a fact.
        facts: The known facts.
        notes: Remarks for people, beside the facts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str = Field(min_length=1)
    kind: Literal["host", "board", "phone", "microcontroller"]
    runtime: str = Field(min_length=1)
    formats: tuple[str, ...]
    threads: int = Field(default=1, ge=1, strict=True)
    facts: Facts = Facts()
    notes: str = ""

    @model_validator(mode="after")
    def _runs_its_runtime(self) -> Self:
        if self.runtime not in self.formats:
            raise _problem("runtime", f"{self.runtime!r} is not among formats: {', '.join(self.formats)}")
        return self

    def summary_rows(self) -> list[tuple[str, str, str, str]]:
        """Return a row for each stated fact: its name, its value with unit, its provenance, its source."""
        rows: list[tuple[str, str, str, str]] = []
        for key in Facts.model_fields:
            fact: Fact[Any] | None = getattr(self.facts, key)
            if fact is not None:
                rows.append((key, str(fact), fact.provenance, fact.source))
        return rows


def profile_ids() -> list[str]:
    """Return the ids of the profiles that come with the package, sorted."""
    names = (file.name for file in resources.files(_PACKAGE).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Load a device profile.

    Args:
        name_or_path: The id of a profile that comes with the package, or a path to a TOML file.

    Raises:
        ProfileError: If there is no such profile, or it cannot be read, or it is not correct.
        ConfigError: If it is neither.
    """
    require(name_or_path, (str, Path), "profile", "the id of a device, as 'raspberry-pi-5', or a TOML file")
    ids = profile_ids()
    if isinstance(name_or_path, str) and name_or_path in ids:
        name = f"{name_or_path}{_SUFFIX}"
        return _load(resources.files(_PACKAGE) / name, name)
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix != _SUFFIX and not _is_file(path):
        near = get_close_matches(name_or_path.lower(), ids, n=3, cutoff=0.3)
        meant = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ProfileError(
            f"there is no device profile {name_or_path!r}{meant} To see all, run: sekron-edge profiles list"
        )
    return _load(path, str(path))


def _load(file: Traversable, shown: str) -> DeviceProfile:
    given = read_toml(file, ProfileError, shown)
    try:
        profile = DeviceProfile.model_validate(given)
    except ValidationError as error:
        problems = [f"{shown}: {problem}" for problem in _problems(error)]
        raise ProfileError("\n".join(problems)) from error
    return _with_this_machine(profile) if profile.kind == "host" else profile


def _with_this_machine(profile: DeviceProfile) -> DeviceProfile:
    """Add the operating system's facts where the profile states none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    host = _hostinfo.this_machine()
    read: dict[str, tuple[Any, str]] = {
        "cpu": (host.cpu_model, ""),
        "cores": (cores, "cores"),
        "clock": (host.clock_mhz, "MHz"),
        "ram": (psutil.virtual_memory().total, "bytes"),
    }
    facts = {key: {"provenance": "unknown", "source": "the operating system does not say"} for key in read}
    for key, (value, unit) in read.items():
        if value is not None:
            facts[key] = {"value": value, "unit": unit, "provenance": "measured"}
            facts[key]["source"] = "read from the operating system"
    stated = profile.facts.model_dump(exclude_none=True)
    return profile.model_copy(update={"facts": Facts.model_validate({**facts, **stated})})


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than the file system's longest
        return False


def _readable_bytes(value: int) -> str:
    """Return the exact value if some unit makes it short, else four digits."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB"):
        size = _MEMORY[unit]
        if size <= value < 10_000 * size and value * 4 % size == 0:
            return f"{value / size:,.15g} {unit}"
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if value >= _MEMORY[unit]), "bytes")
    return f"{value / _MEMORY[unit]:.4g} {unit}"


def _problem(key: str, text: str) -> PydanticCustomError:
    """Return an error at ``key`` of the table being validated; pydantic adds the path to the table."""
    return PydanticCustomError("profile", "{text}", {"key": key, "text": text})


def _problems(error: ValidationError) -> list[str]:
    """Return the text of each of pydantic's errors with its dotted key, and what would be right."""
    said = []
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        given = _shortened(problem["input"])
        text = f"{problem['msg'][0].lower()}{problem['msg'][1:]}, not {given}"
        if problem["type"] == "profile":
            path.append(problem["ctx"]["key"])
            text = problem["ctx"]["text"]
        elif problem["type"] == "missing":
            text = "missing"
        elif problem["type"] == "extra_forbidden":
            text = f"no such key; the nearest is {_nearest_key(path)}"
        elif problem["type"] == "model_type":
            text = f"must be a table, not {given}"
        elif problem["type"] == "tuple_type":
            text = f"must be a list, not {given}"
        said.append(f"{'.'.join(path)}: {text}")
    return said


def _shortened(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= _LONGEST_REPR else f"{text[:_LONGEST_REPR]}..."


def _nearest_key(path: list[str]) -> str:
    """Return the valid key nearest to a wrong one; a fact at the top level is also looked for below ``facts``."""
    inside_fact = len(path) > 2
    if inside_fact:
        keys = {key: ".".join([*path[:-1], key]) for key in Fact.model_fields}
    else:
        keys = {key: f"facts.{key}" for key in Facts.model_fields} | {key: key for key in DeviceProfile.model_fields}
    return keys[get_close_matches(path[-1], keys, n=1, cutoff=0.0)[0]]
