"""What packages bring under an entry-point group."""

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
