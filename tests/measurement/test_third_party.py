"""An exporter of somebody else, that of docs/exporters.md: exported, verified, measured here and on a board, packed."""

import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import Array, Artifact, Exporter, _registry, register_exporter
from sekron_edge.bundle import Delivery, Golden, pack, verify_bundle
from sekron_edge.errors import ExportError, UnsupportedError
from sekron_edge.measurement import Conditions, open_device
from tests.bundle.test_bundle import COST
from tests.measurement.boards import Board
from tests.small_bundle import manifest_of

PAGE = Path(__file__).parents[2] / "docs" / "exporters.md"
FILES = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUICK = Conditions(runs=4, warmup=1, timeout_s=60)
X = torch.randn(4, 3, 2, 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules where somebody else's are; what is registered goes with the test."""
    modules = tmp_path / "somebody else's"
    modules.mkdir()
    for name, text in FILES.findall(PAGE.read_text()):
        (modules / name).write_text(text)
    monkeypatch.syspath_prepend(modules)
    monkeypatch.setattr(_registry, "_registered", {})
    for name in [name for name in sys.modules if name.startswith("affine")]:
        monkeypatch.delitem(sys.modules, name)
    return modules


@pytest.fixture
def exporter(folder: Path) -> Exporter:
    exporter: Exporter = importlib.import_module("affine").AffineExporter()
    register_exporter(exporter)
    return exporter


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5)).eval()


@pytest.fixture
def artifact(exporter: Exporter, model: nn.Module, tmp_path: Path) -> Artifact:
    return se.export(model, (X,), format=exporter.name, out=tmp_path / "out")


def test_it_is_verified_and_says_what_it_cannot(artifact: Artifact, model: nn.Module, tmp_path: Path) -> None:
    assert se.verify(artifact, model, [X]).runtime == "numpy"
    with pytest.raises(ExportError, match="affine: converting Sequential failed: it has activations"):
        se.export(nn.Sequential(model, nn.ReLU()), (X,), format="affine", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
    artifact.path.write_bytes(b"PK rubbish")
    with pytest.raises(ExportError, match="cannot be read by numpy"):
        se.verify(artifact, model, [X])


@pytest.mark.parametrize("device", ["local", "ssh:board"])
def test_it_is_measured_here_and_on_a_board(device: str, artifact: Artifact, model: nn.Module, at_board: Board) -> None:
    handed: list[Array] = []

    def check_outputs(outputs: tuple[Array, ...]) -> str:
        handed.extend(outputs)
        return "seen"

    measured = open_device(device).measure(artifact, QUICK, inputs=[X.numpy()], check_outputs=check_outputs)
    assert (measured.format, measured.runtime, measured.runtime_version) == ("affine", "numpy", np.__version__)
    assert measured.verified == "seen"
    assert not any("reference evaluator" in remark for remark in measured.remarks)
    np.testing.assert_allclose(handed[0], model(X).detach().numpy(), atol=1e-4)


def test_its_runtime_is_sent_once(artifact: Artifact, folder: Path, at_board: Board) -> None:
    open_device("ssh:board").measure(artifact, QUICK)
    kept = at_board.files()
    open_device("ssh:board").measure(artifact, QUICK)
    assert at_board.files() == kept
    source = folder / "affine_on_device.py"
    source.write_text(source.read_text().replace('runtime = "numpy"', 'runtime = "another"'))
    assert open_device("ssh:board").measure(artifact, QUICK).runtime == "another"


def test_it_is_packed_with_its_snippet(artifact: Artifact, model: nn.Module, tmp_path: Path) -> None:
    plan = se.score(model, (X,), COST).plan(se.Budget(), profile="host", runtime="affine")
    check = se.verify(artifact, model, [X])
    delivery = Delivery(artifact=artifact, check=check, measured=None, dense_bytes=9, dense_measured=None, snippet="")
    golden = Golden((X.numpy(),), (model(X).detach().numpy(),))
    written = pack(manifest_of(plan, [delivery]), plan, golden, model.state_dict(), tmp_path / "bundle")
    assert written.deliveries[0].snippet == "snippets/model_fp32_affine.py"
    command = [sys.executable, str(tmp_path / "bundle" / written.deliveries[0].snippet)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(4, 5)\n"
    verify_bundle(tmp_path / "bundle")


# The same format without a runtime that travels, for processes that have not imported torch.
BARE = """
    from affine_on_device import AffineSession


    class BareExporter:
        name, suffix, precisions = "bare", ".npz", ("fp32",)

        def import_runtime(self):
            pass

        def load(self, artifact, *, threads=1):
            return AffineSession(artifact.path)
"""


@pytest.fixture
def bare(artifact: Artifact) -> Artifact:
    return artifact.model_copy(update={"format": "bare"})


def test_without_a_travelling_runtime_it_is_measured_here_alone(bare: Artifact, folder: Path, at_board: Board) -> None:
    (folder / "bare.py").write_text(textwrap.dedent(BARE))
    register_exporter(importlib.import_module("bare").BareExporter())
    assert open_device("local").measure(bare, QUICK).runtime == "numpy"
    with pytest.raises(UnsupportedError, match="the exporter of bare brings no runtime for devices"):
        open_device("ssh:board").measure(bare, QUICK)


def run_script(text: str, bare: Artifact, folder: Path) -> str:
    """Run a script that defines the exporter; return what it prints, or the error that ends it."""
    begins = f"""
        from sekron_edge.artifacts import Artifact, register_exporter
        from sekron_edge.measurement import measure

        artifact = Artifact.model_validate_json({bare.model_dump_json()!r})
    """
    script = folder / "script.py"
    script.write_text("\n".join(textwrap.dedent(part) for part in (begins, BARE, text)))
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    return ended.stderr if ended.returncode else ended.stdout


def test_the_exporter_of_a_script_is_found_where_it_measures(bare: Artifact, folder: Path) -> None:
    guarded = """
        if __name__ == "__main__":
            register_exporter(BareExporter())
            print(measure(artifact, runs=4).runtime)
    """
    assert run_script(guarded, bare, folder) == "numpy\n"


UNGUARDED = """
    register_exporter(BareExporter())
    measure(artifact, runs=4)
"""
IN_A_FUNCTION = """
    def made():
        class Local(BareExporter):
            pass

        return Local()

    if __name__ == "__main__":
        register_exporter(made())
        measure(artifact, runs=4)
"""
WITH_ARGUMENTS = """
    class Named(BareExporter):
        def __init__(self, name):
            self.name = name

    if __name__ == "__main__":
        register_exporter(Named("bare"))
        measure(artifact, runs=4)
"""
RENAMED = """
    if __name__ == "__main__":
        exporter = BareExporter()
        exporter.name = "other"
        register_exporter(exporter)
        measure(artifact.model_copy(update={"format": "other"}), runs=4)
"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (UNGUARDED, 'what script.py does must stand below `if __name__ == "__main__":`'),
        (IN_A_FUNCTION, "made.<locals>.Local of __main__ cannot be imported there"),
        (WITH_ARGUMENTS, "Named() cannot be made there"),
        (RENAMED, "BareExporter() is named 'bare' there"),
    ],
    ids=["unguarded", "in a function", "with arguments", "renamed"],
)
def test_an_exporter_that_is_not_found_where_it_measures_is_one_clear_error(
    script: str, reason: str, bare: Artifact, folder: Path
) -> None:
    error = run_script(script, bare, folder).strip().rpartition("\nsekron_edge.errors.")[2]
    assert error.startswith("DeviceError: ")
    assert reason in error
    assert "define its class at the top of a module" in error
    assert "install the runtime" not in error
