"""A job for a microcontroller ends in firmware's source that fits, or in exit code 3 and the reason."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.measurement import comparable_device
from tests.commands import Ended, run

MODEL = Path(__file__).parents[2] / "examples" / "models" / "digits_cnn.py"
JOB = f"""
name = "digits"
[model]
factory = "{MODEL}:digits_cnn"
[data]
source = "digits"
augment_shift = 1
[target]
profile = "stm32h743"
runtime = "tflm"
precisions = ["int8"]
[budget]
artifact_bytes = "0.6x"
latency_ms = 50
[train]
epochs = 10
threads = 1
[finetune]
epochs = 5
threads = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, calibrated: Callable[..., None]) -> Path:
    path = tmp_path_factory.mktemp("mcu")
    calibrated(path / "cache", "int8", comparable_device())  # an NPU's times are estimated from it
    (path / "job.toml").write_text(JOB)
    board = (resources.files("sekron_edge.profiles") / "stm32h743.toml").read_text()
    board = board.replace('id = "stm32h743"', 'id = "tiny-board"')
    (path / "tiny.toml").write_text(board.replace('value = 480\nunit = "KiB"', 'value = 4\nunit = "KiB"'))
    (path / "less.toml").write_text(board.replace('value = 2\nunit = "MiB"', 'value = 4\nunit = "KiB"'))
    return path


def run_job(folder: Path, *arguments: object, job: str = "job.toml") -> Ended:
    return run("run", folder / job, *arguments, cache=folder / "cache")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    done = run_job(folder, "--out", folder / "bundle")
    assert done.code == 0, done.err
    return folder / "bundle"


@pytest.mark.slow
def test_the_bundle_holds_firmwares_source_and_what_it_needs(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    assert manifest.kept
    (delivery,) = manifest.deliveries
    arena = delivery.artifact.arena
    assert arena is not None
    assert delivery.dense_arena_bytes is not None
    assert arena.size_bytes < delivery.dense_arena_bytes * 1.5
    assert delivery.measured is None
    assert delivery.score is not None
    assert delivery.score > 0.85
    assert delivery.scored_samples is None  # there are fewer than a thousand: all
    results = {result.entry: result for result in manifest.results}
    assert "tested with tflm" in results["peak_memory_bytes"].how
    assert results["peak_memory_bytes"].found == arena.size_bytes
    assert results["latency_ms"].how.startswith("estimated for stm32h743")
    header = (bundle / delivery.sources[0]).read_text()
    assert f"kArenaBytes = {arena.size_bytes};" in header
    assert all(source in manifest.files for source in delivery.sources)
    assert "MicroInterpreter" in (bundle / delivery.snippet).read_text()
    assert verify_bundle(bundle).comparisons


@pytest.mark.slow
def test_a_bundle_for_an_npu_says_what_was_run_and_what_was_not(folder: Path) -> None:
    job = JOB.replace("stm32h743", "corstone-300-u55").replace('runtime = "tflm"', 'formats = ["ethos-u:u55-128"]')
    (folder / "npu.toml").write_text(job.replace("latency_ms = 50\n", ""))
    done = run_job(folder, "--out", folder / "npu", job="npu.toml")
    assert done.code == 0, done.err
    (delivery,) = read_manifest(folder / "npu").deliveries
    before, npu = delivery.artifact.compiled_from, delivery.artifact.npu
    assert before is not None
    assert npu is not None
    assert delivery.check is not None
    assert delivery.dense_npu is not None
    assert delivery.check.artifact_sha256 == before.sha256
    assert delivery.measured is None
    assert npu.provenance == "estimated"
    assert delivery.dense_npu.cycles > npu.cycles
    assert list(verify_bundle(folder / "npu").comparisons) == [before.path.as_posix()]
    report = (folder / "npu" / "report.html").read_text()
    assert f"{delivery.artifact.path.name} was compiled from it, and was not run" in report
    assert "cannot be run here" in " ".join(done.err.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "reason"), [("tiny", "peak_memory_bytes <= 4096 cannot be met: layer"), ("less", "artifact_bytes")]
)
def test_what_cannot_fit_is_refused_with_the_reason(board: str, reason: str, bundle: Path, folder: Path) -> None:
    done = run_job(folder, "--device", folder / f"{board}.toml", "--out", folder / board)
    assert done.code == 3, done.err
    assert reason in done.err
    assert not (folder / board).exists()
