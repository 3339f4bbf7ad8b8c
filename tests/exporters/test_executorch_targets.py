"""ExecuTorch's other backends: lowered here, whole, described; and nobody claims that they were run.

Core ML's delegate holds a package, which Core ML's reference evaluator reads.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import Precision, get_exporter
from sekron_edge.errors import ConfigError, ExportError, MissingDependencyError, NotRunnableError
from sekron_edge.structure import tucker2

_TOSA = "tosa-tools==2026.5.0"
_CALIBRATION = (torch.randn(16, 3, 16, 16),)


def _network() -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return se.replace_layers(dense, {"3": tucker2((32, 16, 3, 3), 8, 8)}).eval()


@pytest.fixture
def sought_after_relu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Core ML's quantizer look for the one activation that there is: for each it traces dozens of modules."""
    from executorch.backends.apple.coreml.quantizer import _coreml_quantizer_utils

    monkeypatch.setattr(_coreml_quantizer_utils, "_supported_activations", (nn.functional.relu,))
    monkeypatch.setattr(_coreml_quantizer_utils, "_supported_activations_no_inplace", ())


@pytest.mark.slow
def test_a_program_for_another_machine_is_whole_and_says_where_it_runs(tmp_path: Path) -> None:
    exporter = get_exporter("executorch:vulkan")
    path = tmp_path / f"model{exporter.suffix}"
    artifact = exporter.export(_network(), (torch.randn(1, 3, 16, 16),), precision="fp16", path=path)
    assert artifact.delegated == 1.0
    assert [spec.shape for spec in (*artifact.inputs, *artifact.outputs)] == [(1, 3, 16, 16), (1, 10)]
    with pytest.raises(NotRunnableError, match="not runnable here: executorch:vulkan runs on Android"):
        exporter.load(artifact)
    with pytest.raises(NotRunnableError, match="not runnable here"):
        se.verify(artifact, _network(), [torch.randn(4, 3, 16, 16)])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ExportError, match="export it again") as broken:
        exporter.load(artifact)
    assert not isinstance(broken.value, NotRunnableError)


@pytest.mark.slow
@pytest.mark.usefixtures("sought_after_relu_alone")
@pytest.mark.parametrize(("precision", "least"), [("fp32", 100), ("fp16", 40), ("int8", 15)])
def test_the_package_of_core_mls_delegate_is_evaluated(precision: Precision, least: float, tmp_path: Path) -> None:
    model, samples = _network(), torch.randn(4, 3, 16, 16)
    artifact = se.export(
        model, samples[:1], format="executorch:coreml", precision=precision, out=tmp_path, calibration=_CALIBRATION[0]
    )
    assert artifact.delegated == 1.0
    check = se.verify(artifact, model, [samples], calibration=_CALIBRATION[0])
    assert check.runtime == "mil-reference"
    assert check.real.snr_db > least
    assert not get_exporter("executorch:coreml").load(artifact).measurable


def test_a_program_of_which_core_ml_has_a_part_is_not_verified(tmp_path: Path) -> None:
    class Split(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fmod(x * 2, 0.3) * 2  # Core ML's converter does not know this operator

    artifact = se.export(Split(), torch.randn(1, 4), format="executorch:coreml", out=tmp_path)
    assert artifact.delegated is not None
    assert artifact.delegated < 1
    with pytest.raises(NotRunnableError, match=r"one Core ML package as a whole .* parts"):
        se.verify(artifact, Split(), [torch.randn(2, 4)])


def test_a_damaged_package_of_core_mls_delegate_is_no_reason_to_look_elsewhere(tmp_path: Path) -> None:
    artifact = se.export(nn.Linear(4, 2), torch.randn(1, 4), format="executorch:coreml", out=tmp_path)
    whole = artifact.path.read_bytes()
    artifact.path.write_bytes(whole.replace(b"inputNames", b"inputNamed"))
    with pytest.raises(ExportError, match="export it again") as broken:
        get_exporter("executorch:coreml").load(artifact)
    assert not isinstance(broken.value, NotRunnableError)


def test_an_unknown_target_is_refused_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match="it has: coreml, vulkan, cortex-m"):
        get_exporter("executorch:metal")


def test_what_lowering_for_cortex_m_lacks_is_named_with_the_remedy(tmp_path: Path) -> None:
    exporter = get_exporter("executorch:cortex-m")
    assert not exporter.availability().ok
    with pytest.raises(MissingDependencyError, match="pip install --no-deps tosa-tools"):
        exporter.export(_network(), (torch.randn(1, 3, 16, 16),), precision="int8", path=tmp_path / "m.pte")


@pytest.mark.slow
def test_cortex_m_is_lowered_where_its_package_is_installed(tmp_path: Path) -> None:
    """In a folder of its own: its pins of numpy and flatbuffers are not ours."""
    folder = tmp_path / "packages"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), _TOSA], check=True
    )
    program = f"""
import sys
sys.path.append({str(folder)!r})
from pathlib import Path
import torch
from torch import nn
from sekron_edge.artifacts import Precision, get_exporter
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 1),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
)
exporter = get_exporter("executorch:cortex-m")
assert exporter.availability().ok
artifact = exporter.export(
    model, (torch.randn(1, 3, 16, 16),), precision="int8", path=Path({str(tmp_path / "model.pte")!r}),
    calibration=(torch.randn(16, 3, 16, 16),),
)
print("share", artifact.delegated)
try:
    exporter.load(artifact)
except Exception as error:
    print(type(error).__name__, error)
"""
    spoken = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    share, refused = spoken.stdout.splitlines()[-2:]
    assert float(share.split()[1]) > 0.5
    assert refused.startswith("NotRunnableError")
    assert "runs on a Cortex-M55" in refused
