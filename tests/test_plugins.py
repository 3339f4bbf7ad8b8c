"""What packages bring under an entry-point group."""

import subprocess
import sys
from pathlib import Path

import pytest

from sekron_edge.errors import ConfigError
from sekron_edge.plugins import Plugins


@pytest.fixture
def things(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugins[str]:
    """Those of a package that lies on the path, as an installed one does."""
    described = tmp_path / "plugin-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[things]\nlast = a_plugin:LAST\nbroken = no_such_module:X\n")
    (tmp_path / "a_plugin.py").write_text("LAST = 'the last'\n")
    monkeypatch.syspath_prepend(tmp_path)
    return Plugins("things", "thing")


def test_what_is_installed_and_what_is_registered_is_found_by_name(things: Plugins[str]) -> None:
    things.register("first", "the first")
    assert things.names() == ["broken", "first", "last"]
    assert [things.find(name) for name in ("first", "last", "none")] == ["the first", "the last", None]


@pytest.mark.parametrize("name", ["first", "last"])
def test_a_name_is_given_once(things: Plugins[str], name: str) -> None:
    things.register("first", "the first")
    with pytest.raises(ConfigError, match=f"a thing named '{name}' exists"):
        things.register(name, "another")


def test_only_what_is_asked_for_is_imported(things: Plugins[str]) -> None:
    assert things.find("last") == "the last"
    with pytest.raises(ModuleNotFoundError):
        things.find("broken")


BROUGHT = """
from sekron_edge.budget import Resource
from sekron_edge.measurement import Device, DeviceSettings, Transport
from sekron_edge.planner import Family
from sekron_edge.task_kinds import DataSection, TaskKind

FAMILY = Family("brought", lambda shape: iter(()))
RESOURCE = Resource("brought", unit="", meaning="Operators", predict=len)
TASK = TaskKind("brought", DataSection, lambda section, seed, cache: None)
TRANSPORT = Transport("brought", DeviceSettings, lambda name, settings: Device())
"""
ASKING = """
from sekron_edge.budget import resources
from sekron_edge.measurement import known_transports
from sekron_edge.planner import structure_families
from sekron_edge.task_kinds import get_task_kind

assert "brought" in resources()
assert "brought" in structure_families()
assert "brought" in [transport.name for transport in known_transports()]
assert get_task_kind("brought").name == "brought"
"""


def test_an_installed_package_adds_what_it_brings_whatever_is_imported_first(tmp_path: Path) -> None:
    (tmp_path / "a_package.py").write_text(BROUGHT)
    described = tmp_path / "a_package-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    points = {"families": "FAMILY", "resources": "RESOURCE", "tasks": "TASK", "transports": "TRANSPORT"}
    lines = [f"[sekron_edge.{group}]\nbrought = a_package:{name}\n" for group, name in points.items()]
    (described / "entry_points.txt").write_text("".join(lines))
    asked = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{ASKING}"
    subprocess.run([sys.executable, "-P", "-c", asked], check=True)
