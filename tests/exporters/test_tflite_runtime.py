"""tflite-runtime 2.14, which boards still have, runs what is exported; in an environment of its own (numpy 1)."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sekron_edge.artifacts import Array, Precision, export, get_exporter
from sekron_edge.measurement import Conditions, open_device
from sekron_edge.nn import replace_layers
from tests.measurement.boards import Board
from tests.measurement.conftest import at_board, board  # noqa: F401 - fixtures
from tests.strategies import factorized_structures

RUN = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(sys.argv[2]))
interpreter.invoke()
np.save(sys.argv[3], interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
"""


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has no wheels for this Python")
    folder = tmp_path_factory.mktemp("old")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "tflite-runtime==2.14.0", "numpy<2"], check=True, timeout=300
    )
    return python


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "tflm"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_computes_what_litert_computes(format: str, precision: Precision, old_python: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    structures = list(factorized_structures().values())
    layers = [nn.Conv2d(8, 12, 3, padding=1) for _ in structures]
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    branches = nn.ModuleList(
        replace_layers(nn.Sequential(layer), {"0": structure})
        for layer, structure in zip(layers, structures, strict=True)
    )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branches, self.head = stem, branches, nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            total: Tensor = self.branches[0](x)
            for branch in self.branches[1:]:
                total = total + branch(x)
            logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(torch.relu(total), 1).flatten(1))
            return logits

    x, calibration = torch.randn(1, 3, 16, 16), (torch.randn(32, 3, 16, 16),)
    artifact = export(Network().eval(), (x,), format=format, precision=precision, out=tmp_path, calibration=calibration)
    given = artifact.inputs[0].from_torch(x.numpy())
    np.save(tmp_path / "in.npy", given)
    arguments = [str(artifact.path), str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run([old_python, "-c", RUN, *arguments], check=True, timeout=120, capture_output=True)
    (expected,) = get_exporter(format).load(artifact).run([given])
    found = np.load(tmp_path / "out.npy")
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.slow
def test_a_board_that_has_it_is_measured(old_python: Path, at_board: Board, tmp_path: Path) -> None:  # noqa: F811
    model, x = nn.Conv2d(3, 4, 3), torch.randn(3, 3, 8, 8)
    artifact = export(model, (x[:1],), format="litert", out=tmp_path)
    at_board.write(board=at_board.settings(python=str(old_python)))

    def check_outputs(outputs: Sequence[Array]) -> str:
        np.testing.assert_allclose(outputs[0], model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
        return "agrees"

    found = open_device("ssh:board").measure(
        artifact, Conditions(runs=4), inputs=[x.numpy()], check_outputs=check_outputs
    )
    assert (found.runtime, found.runtime_version, found.verified) == ("tflite-runtime", "2.14.0", "agrees")
