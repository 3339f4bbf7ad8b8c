"""Every number in a profile has a source, and every mistake in one is a single error that says what would be right."""

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sekron_edge.devices import DeviceProfile, Fact, load_profile, profile_ids
from sekron_edge.devices._profile import Facts
from sekron_edge.errors import ProfileError
from sekron_edge.measurement._hostinfo import HostInfo
from tests.narrowing import present

DEVICE = """
id = "my-board"
name = "My board"
kind = "board"
runtime = "litert"
formats = ["litert"]
"""
RAM = """
[facts.ram]
value = 8
unit = "GiB"
provenance = "datasheet"
source = "https://example.com/board.pdf"
"""
UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "kB": 1000, "MB": 1000**2, "GB": 1000**3}
PROVENANCES = st.sampled_from(["datasheet", "measured", "estimated", "recalled"])


def load(folder: Path, text: str) -> DeviceProfile:
    path = folder / "mine.toml"
    path.write_text(text)
    return load_profile(path)


def message(folder: Path, text: str) -> str:
    """What the error of a profile says; it must name the file."""
    with pytest.raises(ProfileError) as caught:
        load(folder, text)
    assert str(folder / "mine.toml") in str(caught.value)
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", profile_ids())
def test_every_number_of_a_shipped_profile_has_provenance_and_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.id == name
    rows = profile.summary_rows()
    assert len(rows) >= 4
    for _, value, provenance, source in rows:
        assert (value == "unknown") == (provenance == "unknown")
        assert source
        if provenance == "datasheet":
            assert "https://" in source
    # A number outside [facts] would have no source; threads is a setting.
    text = tomllib.loads((resources.files("sekron_edge.profiles") / f"{name}.toml").read_text())
    assert [key for key, value in text.items() if isinstance(value, int | float)] == ["threads"]


@pytest.mark.parametrize("name", [name for name in profile_ids() if name != "host"])
def test_a_microcontroller_states_sram_and_flash_and_everything_else_ram(name: str) -> None:
    profile = load_profile(name)
    needed = {"sram", "flash"} if profile.kind == "microcontroller" else {"ram"}
    assert all(getattr(profile.facts, key).value for key in needed)
    assert profile.facts.cores is None or profile.threads <= present(profile.facts.cores.value)


def test_the_devices_that_the_package_promises_are_there() -> None:
    assert {
        *("host", "raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w", "pixel-8", "galaxy-s24", "iphone-12"),
        *("iphone-15", "stm32h743", "stm32l4r5", "esp32-s3", "nano-33-ble-sense"),
    } <= set(profile_ids())
    assert profile_ids() == sorted(profile_ids())


def test_the_host_is_filled_with_what_the_system_says() -> None:
    facts = load_profile("host").facts
    assert present(facts.ram).value == psutil.virtual_memory().total
    assert present(facts.ram).provenance == "measured"
    if hasattr(os, "sched_getaffinity"):
        assert present(facts.cores).value == len(os.sched_getaffinity(0))


def test_what_the_system_does_not_say_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sekron_edge.measurement._hostinfo.this_machine", lambda: HostInfo({}))
    facts = load_profile("host").facts
    assert (present(facts.clock).value, present(facts.clock).provenance) == (None, "unknown")
    assert (present(facts.cpu).value, present(facts.cpu).provenance) == (None, "unknown")


def test_what_a_host_profile_states_is_not_read(tmp_path: Path) -> None:
    facts = load(tmp_path, DEVICE.replace('"board"', '"host"') + RAM).facts
    assert (present(facts.ram).value, present(facts.ram).provenance) == (8 * 1024**3, "datasheet")
    assert present(facts.cores).provenance == "measured"


def test_a_gibibyte(tmp_path: Path) -> None:
    ram = present(load(tmp_path, DEVICE + RAM.replace("8", "1")).facts.ram)
    assert (ram.value, ram.unit, str(ram)) == (1073741824, "bytes", "1 GiB")


@given(st.integers(1, 2**20), st.sampled_from(list(UNITS)), PROVENANCES)
def test_memory_converts_to_bytes_exactly(value: int, unit: str, provenance: str) -> None:
    stated = {"value": value, "unit": unit, "provenance": provenance, "source": "a book"}
    assert present(Facts.model_validate({"flash": stated}).flash).value == value * UNITS[unit]


def test_clocks_convert_to_megahertz(tmp_path: Path) -> None:
    clock = load(tmp_path, DEVICE + RAM.replace("ram", "clock").replace("8", "2.4").replace("GiB", "GHz")).facts.clock
    assert clock is not None
    assert (clock.value, clock.unit) == (2400, "MHz")


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [(2359296 * 1024, "2.25 GiB"), (128 * 10**9, "128 GB"), (270336, "264 KiB"), (24684084 * 1024, "23.54 GiB")],
)
def test_memory_is_shown_in_a_readable_unit(bytes_: int, shown: str) -> None:
    assert str(Fact[int](value=bytes_, unit="bytes", provenance="measured", source="here")) == shown


facts = st.builds(
    lambda value, unit, provenance, source: {"value": value, "unit": unit, "provenance": provenance, "source": source},
    st.integers(1, 2**30) | st.floats(0.001, 1e6),
    st.sampled_from(["KiB", "MiB", "GiB", "MB"]),
    PROVENANCES,
    st.text(min_size=1).filter(str.strip),
) | st.just({"provenance": "unknown"})


@given(st.dictionaries(st.sampled_from(["ram", "usable_ram", "storage", "sram", "flash"]), facts), st.text())
def test_a_profile_survives_json(stated: dict[str, Any], notes: str) -> None:
    profile = DeviceProfile.model_validate({**tomllib.loads(DEVICE), "notes": notes, "facts": stated})
    again = DeviceProfile.model_validate_json(profile.model_dump_json())
    assert again == profile
    assert again.summary_rows() == profile.summary_rows()


@pytest.mark.parametrize("name", profile_ids())
def test_a_shipped_profile_survives_json(name: str) -> None:
    profile = load_profile(name)
    assert DeviceProfile.model_validate_json(profile.model_dump_json()) == profile


def test_a_profile_cannot_be_changed() -> None:
    profile = load_profile("raspberry-pi-5")
    with pytest.raises(ValidationError):
        present(profile.facts.ram).value = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        (DEVICE + 'runtimes = "litert"', "runtimes", "runtime"),
        (DEVICE + "ram = 8", "ram", "facts.ram"),
        (DEVICE + RAM.replace("ram", "rma"), "facts.rma", "facts.ram"),
        (DEVICE + RAM.replace("source", "sauce"), "facts.ram.sauce", "facts.ram.source"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, key: str, nearest: str) -> None:
    assert f"{key}: no such key; the nearest is {nearest}" in message(tmp_path, text)


@pytest.mark.parametrize(
    ("fact", "unit", "allowed"),
    [
        ("ram", "Gb", "bytes, KiB, MiB, GiB, kB, MB, GB"),
        ("flash", "", "bytes, KiB, MiB, GiB, kB, MB, GB"),
        ("clock", "GiB", "MHz, GHz"),
        ("cores", "GHz", "cores"),
        ("memory_bandwidth", "GiB/s", "GB/s"),
        ("npu_rate", "GFLOPS", "TOPS"),
    ],
)
def test_a_wrong_unit_names_the_allowed_ones(tmp_path: Path, fact: str, unit: str, allowed: str) -> None:
    said = message(tmp_path, DEVICE + RAM.replace("ram", fact).replace("GiB", unit))
    assert f"facts.{fact}.unit: " in said
    assert said.endswith(f"allowed: {allowed}")
    assert repr(unit) in said or "missing" in said


def test_a_name_has_no_unit(tmp_path: Path) -> None:
    said = message(tmp_path, DEVICE + RAM.replace("ram", "npu").replace("8", '"Ethos-U55"'))
    assert "facts.npu.unit" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RAM.replace("8", '"8"'), "facts.ram.value: "),
        (RAM.replace("8", "true"), "facts.ram.value: "),
        (RAM.replace("8", "-8"), "facts.ram.value: must be a positive"),
        (RAM.replace("8", "nan"), "facts.ram.value: must be a positive"),
        (RAM.replace("8", "inf"), "facts.ram.value: must be a positive"),
        (RAM.replace("8", "9" * 400), "facts.ram.value is an integer of more than 64 bits"),
        (RAM.replace("datasheet", "guessed"), "facts.ram.provenance: "),
        (RAM.replace("datasheet", "unknown"), "facts.ram.value: a fact of provenance"),
        (RAM.replace("value = 8\n", ""), "facts.ram.value: missing"),
        (RAM.replace('"https://example.com/board.pdf"', '" "'), "facts.ram.source: missing"),
        (RAM.replace('provenance = "datasheet"\n', ""), "facts.ram.provenance: missing"),
        (RAM.replace("ram", "cores").replace("GiB", "cores").replace("8", "1.5"), "facts.cores.value: "),
        ("facts = 8", "facts: must be a table"),
        ("facts.ram = 8", "facts.ram: must be a table"),
        ("threads = 0", "threads: "),
        ("threads = true", "threads: "),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, text: str, said: str) -> None:
    assert said in message(tmp_path, DEVICE + text)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('["litert"]', '"litert"', "formats: must be a list"),
        ('["litert"]', "[]", "runtime: 'litert' is not among formats"),
        ('["litert"]', '["coreml"]', "runtime: 'litert' is not among formats: coreml"),
        ('"board"', '"tablet"', "kind: "),
        ('"my-board"', '"My board"', "id: "),
        ('name = "My board"', "", "name: missing"),
        ('name = "My board"', "name = ", "cannot be read as TOML"),
        ('name = "My board"', 'id = "again"', "cannot be read as TOML"),
    ],
)
def test_a_wrong_device_names_its_key(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    assert said in message(tmp_path, DEVICE.replace(right, wrong))


def test_all_mistakes_of_a_file_are_in_one_error(tmp_path: Path) -> None:
    said = message(tmp_path, DEVICE + "threads = 0\n" + RAM.replace("GiB", "Gb"))
    assert "threads: " in said
    assert "facts.ram.unit: " in said


def test_an_unknown_id_suggests_the_nearest() -> None:
    with pytest.raises(ProfileError, match=r"'rasberry-pi-5'; did you mean raspberry-pi-5.*sekron-edge profiles list"):
        load_profile("rasberry-pi-5")


@pytest.mark.parametrize("name", ["", "@", "x" * 5000, "a\0b"])
def test_a_name_like_no_other_points_to_the_list(name: str) -> None:
    with pytest.raises(ProfileError, match="sekron-edge profiles list"):
        load_profile(name)


def test_a_path_is_a_path_whatever_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text(DEVICE)
    assert load_profile(str(path)).id == load_profile(path).id == "my-board"


def test_unreadable_files_are_one_error(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "mine.toml", tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ProfileError) as caught:
            load_profile(path)
        assert str(path) in str(caught.value)


def test_the_example_in_the_guide_is_correct(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    example = guide.partition("```toml\n")[2].partition("```")[0]
    profile = load(tmp_path, example)
    assert present(profile.facts.usable_ram).value == 3 * 2**29
    assert all(f"`{key}`" in guide for key in Facts.model_fields)
