"""Files for Ethos-U: compiled by Vela, estimated and not measured; what is verified is the file that Vela was given."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sekron_edge.artifacts import Artifact, adopt, export, get_exporter
from sekron_edge.devices import footprint, load_profile, require_fit
from sekron_edge.errors import ConfigError, ExportError, InfeasibleBudgetError, VerificationError
from sekron_edge.nn import replace_layers
from sekron_edge.structure import full
from sekron_edge.verification import verify
from tests.narrowing import present

CALIBRATION = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip
    return replace_layers(dense, {"2": full([(4, 4, 3, 1), (8, 4, 1, 3)], [8])}).eval()


def made(folder: Path, format: str, model: nn.Module | None = None) -> Artifact:
    return export(
        model or network(), (CALIBRATION[:1],), format=format, precision="int8", out=folder, calibration=(CALIBRATION,)
    )


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made(tmp_path_factory.mktemp("ethos"), "ethos-u")


@pytest.mark.slow
def test_what_is_verified_is_the_very_file_that_vela_was_given(artifact: Artifact, tmp_path: Path) -> None:
    before = present(artifact.compiled_from)
    assert before.sha256 == made(tmp_path, "tflm").sha256
    check = verify(artifact, network(), [CALIBRATION], calibration=(CALIBRATION,))
    assert check.artifact_sha256 == before.sha256 != artifact.sha256
    assert (check.runtime, check.measurable) == ("tflm", False)
    another = made(tmp_path, "ethos-u", nn.Sequential(nn.Conv2d(3, 10, 16), nn.Flatten()).eval())
    with pytest.raises(VerificationError):
        verify(another, network(), [CALIBRATION], calibration=(CALIBRATION,))


@pytest.mark.slow
def test_it_never_runs_here_and_says_so(artifact: Artifact) -> None:
    with pytest.raises(ExportError, match=r"commands for an Arm Ethos-U, which this machine lacks.*before-u55-128"):
        get_exporter("ethos-u").load(artifact)
    with pytest.raises(ExportError, match="nothing of it can be measured"):
        get_exporter("ethos-u").import_runtime()


@pytest.mark.slow
def test_what_vela_says_is_marked_estimated_and_what_the_cpu_gets_is_named(artifact: Artifact, tmp_path: Path) -> None:
    npu = present(artifact.npu)
    assert npu.provenance == "estimated"
    assert str(npu).startswith("estimated for Ethos-U55-128")
    assert npu.cycles > 0
    assert npu.latency_ms == pytest.approx(npu.cycles / 500e3)
    assert 0 < npu.sram_bytes < 64 * 1024
    assert npu.on_cpu == ()
    assert artifact.delegated == 1

    other = made(tmp_path, "ethos-u", nn.Sequential(*network(), nn.LogSoftmax(1)).eval())  # type: ignore[misc]
    left = present(other.npu).on_cpu
    assert any(one.startswith("LOG_SOFTMAX") for one in left)
    assert all(one in str(other.npu) for one in left)
    assert 0 < present(other.delegated) < 1


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["u65-256", "u85-256"])
def test_every_family_has_files_of_its_own(variant: str, artifact: Artifact, tmp_path: Path) -> None:
    other = made(tmp_path, f"ethos-u:{variant}")
    assert other.format == f"ethos-u:{variant}"
    assert present(other.npu).accelerator == f"Ethos-{variant.upper()}"
    assert present(other.compiled_from).sha256 == present(artifact.compiled_from).sha256
    assert other.sha256 != artifact.sha256


@pytest.mark.slow
def test_a_model_that_the_accelerator_takes_nothing_of_is_refused(tmp_path: Path) -> None:
    x = torch.randn(32, 16)
    with pytest.raises(ExportError, match=r"every operator .* to the CPU: .*LOG_SOFTMAX"):
        export(nn.LogSoftmax(1), (x[:1],), format="ethos-u", precision="int8", out=tmp_path, calibration=(x,))
    assert not list(tmp_path.iterdir())


def test_an_unknown_chip_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ethos-u has no variant 'u55-99'; it has: u55-32"):
        get_exporter("ethos-u:u55-99")
    with pytest.raises(ConfigError, match="litert has no variant 'x'; it has: none"):
        get_exporter("litert:x")


@pytest.mark.slow
def test_what_does_not_fit_in_sram_is_refused(artifact: Artifact) -> None:
    profile = load_profile("corstone-300-u55")
    require_fit(profile, artifact)
    facts = profile.facts.model_copy(update={"sram": present(profile.facts.sram).model_copy(update={"value": 1024})})
    with pytest.raises(InfeasibleBudgetError, match=r"bytes of SRAM \(estimated for Ethos-U55-128\).*1 KiB"):
        require_fit(profile.model_copy(update={"facts": facts}), artifact)


@pytest.mark.slow
def test_of_a_file_that_vela_compiled_elsewhere_the_sizes_are_read(artifact: Artifact, tmp_path: Path) -> None:
    npu = present(artifact.npu)
    found = adopt(artifact.path, format="ethos-u", folder=tmp_path)
    sizes = present(found.npu_sizes)
    assert (found.format, found.sha256, found.npu) == ("ethos-u:u55-128", artifact.sha256, None)
    assert (sizes.accelerator, sizes.sram_bytes, sizes.on_cpu) == (npu.accelerator, npu.sram_bytes, npu.on_cpu)
    assert sizes.weights_bytes == npu.storage_bytes
    assert 0 < sizes.weights_bytes + sizes.commands_bytes < artifact.size_bytes
    assert [spec.shape for spec in found.inputs] == [spec.shape for spec in artifact.inputs]
    needs = present(footprint(found))
    assert (needs.ram_bytes, needs.cycles, needs.macs) == (sizes.arena_bytes, None, None)
    assert "compiled for Ethos-U55-128 already" in needs.source
    with pytest.raises(ExportError, match="another accelerator: take it as ethos-u:u55-128"):
        adopt(artifact.path, format="ethos-u:u65-256", folder=tmp_path)
    with pytest.raises(ExportError, match="take it as ethos-u to have its sizes read"):
        adopt(artifact.path, format="tflm", folder=tmp_path)
    profile = load_profile("corstone-300-u55")
    require_fit(profile, found)
    facts = profile.facts.model_copy(update={"sram": present(profile.facts.sram).model_copy(update={"value": 1024})})
    with pytest.raises(InfeasibleBudgetError, match=r"bytes of SRAM \(read from the file.*1 KiB"):
        require_fit(profile.model_copy(update={"facts": facts}), found)
