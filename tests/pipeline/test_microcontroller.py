"""A job for a microcontroller ends in firmware's source that fits, or in exit code 3 and the reason."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from sekron_edge.bundle import read_manifest, verify_bundle

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
epochs = 12
threads = 1
[finetune]
epochs = 10
threads = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mcu")
    (path / "job.toml").write_text(JOB)
    board = (resources.files("sekron_edge.profiles") / "stm32h743.toml").read_text()
    board = board.replace('id = "stm32h743"', 'id = "tiny-board"')
    (path / "tiny.toml").write_text(board.replace('value = 480\nunit = "KiB"', 'value = 4\nunit = "KiB"'))
    (path / "less.toml").write_text(board.replace('value = 2\nunit = "MiB"', 'value = 4\nunit = "KiB"'))
    return path


def run(folder, *arguments, job="job.toml"):
    environment = {**os.environ, "SEKRON_EDGE_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "sekron_edge", "run", str(folder / job), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)


@pytest.fixture(scope="module")
def bundle(folder):
    done = run(folder, "--out", folder / "bundle")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


@pytest.mark.slow
def test_the_bundle_holds_firmwares_source_and_what_it_needs(bundle):
    manifest = read_manifest(bundle)
    assert manifest.kept
    (delivery,) = manifest.deliveries
    arena = delivery.artifact.arena
    assert arena.size_bytes < delivery.dense_arena_bytes * 1.5
    assert delivery.measured is None
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
def test_a_bundle_for_an_npu_says_what_was_run_and_what_was_not(folder):
    job = JOB.replace("stm32h743", "corstone-300-u55").replace('runtime = "tflm"', 'formats = ["ethos-u:u55-128"]')
    (folder / "npu.toml").write_text(job.replace("latency_ms = 50\n", ""))
    done = run(folder, "--out", folder / "npu", job="npu.toml")
    assert done.returncode == 0, done.stderr
    (delivery,) = read_manifest(folder / "npu").deliveries
    before = delivery.artifact.compiled_from
    assert delivery.check.artifact_sha256 == before.sha256
    assert delivery.measured is None
    assert delivery.artifact.npu.provenance == "estimated"
    assert delivery.dense_npu.cycles > delivery.artifact.npu.cycles
    assert list(verify_bundle(folder / "npu").comparisons) == [before.path.as_posix()]
    report = (folder / "npu" / "report.html").read_text()
    assert f"{delivery.artifact.path.name} was compiled from it, and was not run" in report
    assert "cannot be run here" in " ".join(done.stderr.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "reason"), [("tiny", "peak_memory_bytes <= 4096 cannot be met: layer"), ("less", "artifact_bytes")]
)
def test_what_cannot_fit_is_refused_with_the_reason(board, reason, bundle, folder):
    done = run(folder, "--device", folder / f"{board}.toml", "--out", folder / board)
    assert done.returncode == 3, done.stderr
    assert reason in done.stderr
    assert not (folder / board).exists()
