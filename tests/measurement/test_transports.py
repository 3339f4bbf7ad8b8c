"""Transports by name, and what users set for their devices."""

from pathlib import Path

import pytest

from sekron_edge.artifacts import all_exporters
from sekron_edge.errors import ConfigError
from sekron_edge.measurement import (
    AndroidExporter,
    Device,
    DeviceSettings,
    LocalDevice,
    MeasurementRequest,
    Outcome,
    Transport,
    _transports,
    known_transports,
    open_device,
    register_transport,
    user_devices,
)
from sekron_edge.measurement._user_devices import settings_for
from sekron_edge.measurement.transports import AdbSettings, SshSettings, adb, ssh
from sekron_edge.plugins import Plugins


class SerialSettings(DeviceSettings):
    baud: int = 115200
    port: str = "/dev/ttyUSB0"  # ssh's is a number


class SerialDevice(Device):
    """A device that is never measured."""

    def __init__(self, name: str, settings: SerialSettings) -> None:
        self.name, self.settings = f"serial:{name}", settings

    def carry_out(self, request: MeasurementRequest) -> Outcome:
        raise NotImplementedError


SERIAL = Transport("serial", SerialSettings, SerialDevice)


@pytest.fixture
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(_transports, "_TRANSPORTS", Plugins("sekron_edge.transports", "transport"))


@pytest.fixture
def users_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "devices.toml"
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(path))
    return path


def test_those_that_ship_are_found_like_others() -> None:
    assert {one.name for one in known_transports()} >= {"adb", "local", "ssh"}
    assert isinstance(open_device("local"), LocalDevice)
    for name in ("adb:board", "ssh:board"):
        assert open_device(name).name == name


@pytest.mark.parametrize("name", ["moon", "moon:board", "ssh", "ssh:", "local:", "local:board", ""])
def test_what_is_no_device_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no device {name!r}; name local, or adb:NAME, .*or ssh:NAME"):
        open_device(name)


@pytest.mark.usefixtures("nothing_registered")
def test_a_transport_that_is_registered_opens_devices_with_its_own_settings(users_file: Path) -> None:
    users_file.write_text('[board]\nbaud = 9600\nport = "/dev/ttyACM0"\nhost = "ssh knows"\n')
    with pytest.raises(ConfigError, match=r"board\.baud: no transport knows this key; the nearest key is"):
        user_devices()
    register_transport(SERIAL)
    with pytest.raises(ConfigError, match="'serial' exists"):
        register_transport(SERIAL)
    opened = open_device("serial:board")
    assert isinstance(opened, SerialDevice)
    assert opened.settings == SerialSettings(baud=9600, port="/dev/ttyACM0")
    with pytest.raises(ConfigError, match=r"devices\.toml: board\.port: .*integer"):
        open_device("ssh:board")
    with pytest.raises(ConfigError, match=r"or serial:NAME, .*or ssh:NAME"):
        open_device("moon")


def test_a_table_may_hold_the_keys_of_several_transports(users_file: Path) -> None:
    users_file.write_text('[both]\nhost = "x"\nport = 22\ncool_celsius = 40.0\nemulated = true\n')
    for name in ("adb:both", "ssh:both"):
        assert open_device(name).emulated
    assert list(user_devices()) == ["both"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[board]\nhots = 'x'\n", r"devices\.toml: board\.hots: .*nearest key is host"),
        ("[other]\nhots = 'x'\n", r"devices\.toml: other\.hots: .*nearest key is host"),
        ("[board]\nport = 0\n", r"devices\.toml: board\.port: .*greater than or equal to 1"),
        ("board = 'x'\n", r"devices\.toml: board: .*dictionary"),
        ("[board", "cannot be read"),
    ],
)
def test_the_users_file_is_checked(users_file: Path, text: str, message: str) -> None:
    users_file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        open_device("ssh:board")
    assert isinstance(open_device("local"), LocalDevice)  # this machine needs no file
    users_file.unlink()
    assert open_device("ssh:board").name == "ssh:board"


def test_the_users_file_of_the_docs_is_correct(users_file: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "measuring.md").read_text()
    users_file.write_text(text.partition("```toml\n")[2].partition("```")[0])
    assert settings_for(ssh.TRANSPORT, "board").user == "pi"
    offered = [exporter.android_tool for exporter in all_exporters() if isinstance(exporter, AndroidExporter)]
    assert set(settings_for(adb.TRANSPORT, "pixel").binaries) == {tool.name for tool in offered if tool is not None}
    documented = {key for table in user_devices().values() for key in table}
    assert documented == {*SshSettings.model_fields, *AdbSettings.model_fields}
