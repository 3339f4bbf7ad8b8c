import pytest

from sekron_edge.artifacts import Artifact, TensorSpec
from tests.measurement.boards import Board


@pytest.fixture(scope="session")
def board(tmp_path_factory):
    board = Board(tmp_path_factory.mktemp("board"))
    yield board
    board.stop()


@pytest.fixture
def at_board(board, own_cache, monkeypatch):
    """The board, as it is when nothing is wrong."""
    monkeypatch.setenv("SEKRON_EDGE_DEVICES", str(board.devices))
    board.write(board=board.settings())
    yield board
    board.wait_for_silence()


@pytest.fixture
def doubler(tmp_path):
    """An artifact that the stub runtime takes: it gives twice its input."""
    path = tmp_path / 'it\'s a "model" of $HOME; 50%.tflite'
    path.write_bytes(b"doubler" * 1000)
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    return Artifact.describe(path, format="litert", precision="fp32", inputs=[spec], outputs=[spec], versions={})
