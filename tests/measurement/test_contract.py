"""Every transport keeps the contract of devices: those that ship, and the one of the docs."""

import os
import runpy
import shlex
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from sekron_edge.artifacts import Array, Artifact, PrimitiveExporter, get_exporter
from sekron_edge.errors import DeviceError
from sekron_edge.measurement import Contained, Device, _transports, open_device, register_transport
from sekron_edge.plugins import Plugins
from sekron_edge.primitives import Linear
from sekron_edge.testing import DeviceContract, _devices
from tests.measurement.boards import Board
from tests.measurement.phones import Phone

DOCS = Path(__file__).parents[2] / "docs" / "measuring.md"


def test_what_is_left_on_a_device_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_devices, "_GRACE_S", 0.1)
    files: list[str] = []

    def leave_a_file() -> None:
        with _devices._Refused(lambda: files)(DeviceError, "too late"):
            files.append("a file")
            raise DeviceError("too late")

    with pytest.raises(AssertionError, match="something was left"):
        leave_a_file()


class TestThisMachine(DeviceContract):
    """With the runtime that ships."""

    @pytest.fixture
    def device(self) -> Contained:
        return Contained()

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Artifact:
        exporter = get_exporter("litert")
        assert isinstance(exporter, PrimitiveExporter)
        return exporter.export_primitive(Linear(1, 64, 64), tmp_path / "one.tflite", precision="fp32")


class WithStubRuntime(DeviceContract):
    """A runtime in LiteRT's place that starts at once, and gives twice its input."""

    @pytest.fixture
    def artifact(self, doubler: Artifact) -> Artifact:
        return doubler

    def expected_outputs(self, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Array, ...]:
        return (2 * inputs[0],)


class TestBoard(WithStubRuntime):
    """A real sshd."""

    @pytest.fixture
    def device(self, at_board: Board) -> Device:
        at_board.write(board=at_board.settings("stub"))
        return open_device("ssh:board")

    @pytest.fixture
    def leftovers(self, at_board: Board) -> Callable[[], Collection[str]]:
        return lambda: [*at_board.files(), *(str(process.pid) for process in at_board.processes())]


class TestContainerOfTheDocs(WithStubRuntime):
    """The docs' transport; a script stands in for the container's engine, and runs the command on this machine."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        (tmp_path / "home").mkdir()
        return tmp_path / "home"

    @pytest.fixture
    def device(self, at_board: Board, home: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
        engine = home.with_name("stand-in-for-docker")
        engine.write_text('#!/bin/sh\n[ "$1 $2 $3" = "exec -i box" ] || exit 9\nshift 3\nexec "$@"\n')
        engine.chmod(0o755)
        python = home.with_name("python")
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(at_board.python))} stub "$@"\n')
        python.chmod(0o755)
        at_board.write(box={"engine": str(engine), "python": str(python), "cache": str(home / "cache")})
        monkeypatch.setattr(_transports, "_TRANSPORTS", Plugins("sekron_edge.transports", "transport"))
        code = DOCS.read_text(encoding="utf-8").partition("### A transport of your own")[2]
        (home.parent / "example.py").write_text(code.partition("```python\n")[2].partition("```")[0], encoding="utf-8")
        register_transport(runpy.run_path(os.fspath(home.parent / "example.py"))["TRANSPORT"])
        return open_device("container:box")

    @pytest.fixture
    def leftovers(self, at_board: Board, home: Path) -> Callable[[], Collection[str]]:
        return lambda: [*map(str, home.rglob("*")), *(str(process.pid) for process in at_board.processes())]


class TestStandInPhone(DeviceContract):
    """The real adb client; a daemon of the tests in the place of a phone, and scripts in that of its programs."""

    too_short_s = 2.0  # for some ten calls of the client until a program runs

    @pytest.fixture
    def device(self, at_phone: Phone, at_board: Board) -> Device:
        at_board.write(phone=at_phone.settings('[ "${runs:-1}" -gt 1000000 ] && sleep 1000'))
        return open_device("adb:phone")

    @pytest.fixture(params=["executorch", "litert"])
    def artifact(self, request: pytest.FixtureRequest, same: Artifact) -> Artifact:
        return same.model_copy(update={"format": request.param})

    @pytest.fixture
    def leftovers(self, at_phone: Phone) -> Callable[[], Collection[str]]:
        return lambda: [
            *map(str, at_phone.above.rglob("*")), *(str(process.pid) for process in at_phone.processes())
        ]  # fmt: skip

    def expected_outputs(self, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(inputs)
