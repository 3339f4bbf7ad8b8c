from collections.abc import Iterator
from pathlib import Path

import pytest

from sekron_edge.artifacts import Artifact, TensorSpec
from tests.measurement.boards import Board
from tests.measurement.phones import Phone


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    board = Board(tmp_path_factory.mktemp("board"))
    yield board
    board.stop()


@pytest.fixture
def at_board(board: Board, own_cache: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """The board, as it is when nothing is wrong."""
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(board.devices))
    board.write(board=board.settings())
    yield board
    board.wait_for_silence()


@pytest.fixture
def doubler(tmp_path: Path) -> Artifact:
    """An artifact that the stub runtime takes: it gives twice its input."""
    path = tmp_path / 'it\'s a "model" of $HOME; 50%.tflite'
    path.write_bytes(b"doubler" * 1000)
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    return Artifact.describe(path, format="litert", precision="fp32", inputs=[spec], outputs=[spec], versions={})


@pytest.fixture(scope="session")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    phone = Phone(tmp_path_factory.mktemp("phone"))
    yield phone
    phone.stop()


@pytest.fixture
def at_phone(phone: Phone, at_board: Board, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", phone.environment["ANDROID_ADB_SERVER_PORT"])
    at_board.write(phone=phone.settings())
    yield phone
    phone.says(None)
    phone.wait_for_silence()


@pytest.fixture
def same(tmp_path: Path) -> Artifact:
    """A program that gives what it takes, as the stand-in for executor_runner does."""
    path = tmp_path / 'it\'s "the" same.pte'
    path.write_bytes(b"same")
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    return Artifact.describe(path, format="executorch", precision="fp32", inputs=[spec], outputs=[spec], versions={})
