"""The main job on real data, through the command line; killed and resumed."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.planner import Plan
from tests import offline
from tests.commands import run, run_without_network, start

Whole = tuple[Path, str, str]
MODEL = Path(__file__).parents[2] / "examples" / "models" / "digits_cnn.py"
JOB = f"""
name = "digits"
[model]
factory = "{MODEL}:digits_cnn"
[data]
source = "digits"
augment_shift = 1
[target]
formats = ["litert"]
runs = 10
[budget]
macs = "0.4x"
[reconstruction]
samples = 128
steps = 60
[train]
epochs = 10
threads = 1
[finetune]
epochs = 8
threads = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, calibrated: Callable[..., None]) -> Path:
    """A folder with a job, and a cache that its first run fills."""
    path = tmp_path_factory.mktemp("job")
    (path / "job.toml").write_text(JOB)
    calibrated(path / "cache")
    return path


@pytest.fixture(scope="module")
def whole(folder: Path) -> Whole:
    """The bundle of an uninterrupted run without a network, and what that printed."""
    arguments = ("run", folder / "job.toml", "--out", folder / "whole")
    code, out, err = run_without_network(*arguments, cache=folder / "cache", log=folder / "network.log")
    assert code == 0, err
    return folder / "whole", out, err


@pytest.mark.slow
def test_a_job_ends_in_a_bundle_that_keeps_its_budget(whole: Whole) -> None:
    bundle, out, err = whole
    manifest = read_manifest(bundle)
    assert manifest.kept
    (result,) = manifest.results
    assert result.entry == "macs"
    assert manifest.delivered.macs <= 0.4 * manifest.dense.macs
    assert manifest.score.dense > 0.9
    (delivery,) = manifest.deliveries
    assert delivery.measured is not None
    assert delivery.measured.median_ms > 0
    assert delivery.check is not None
    assert delivery.check.metric is not None
    assert delivery.check.metric.name == "accuracy"
    assert verify_bundle(bundle).comparisons
    assert "parameters" in out
    assert "plan 1" in err
    assert not bundle.with_name("whole.work").exists()
    plan = Plan.model_validate_json((bundle / "plan.json").read_bytes())
    weights = load_file(bundle / "weights.safetensors")
    assert sum(v.size for k, v in weights.items() if "running" not in k and "num_batches" not in k) == (
        plan.cost.parameters
    )


@pytest.mark.slow
@pytest.mark.skipif(bool(offline.why_not()), reason=offline.why_not())
def test_a_whole_job_reaches_for_no_network(folder: Path, whole: Whole) -> None:
    log = folder / "network.log"
    assert "sekron_edge" in log.read_text()
    assert "runner.py" in log.read_text(), "the processes that it starts were not seen"
    assert offline.attempts(log) == []


def _when_written(checkpoint: Path) -> int:
    try:
        return checkpoint.stat().st_mtime_ns
    except FileNotFoundError:  # replaced meanwhile
        return 0


@pytest.mark.slow
def test_a_run_killed_in_fine_tuning_and_resumed_gives_the_same_model(
    folder: Path, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = folder / "killed", folder / "killed.work"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    written = 0
    for sent, resumed in ((signal.SIGTERM, ()), (signal.SIGKILL, ("--resume",))):
        process = start("run", folder / "job.toml", "--out", out, *resumed, cache=folder / "cache")
        until = time.monotonic() + 240
        while max(map(_when_written, (work / "finetune").glob("*.ckpt")), default=0) <= written:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.002)
        os.kill(process.pid, sent)
        _, err = process.communicate()
        assert not out.exists()
        written = max(map(_when_written, (work / "finetune").glob("*.ckpt")))
        if sent == signal.SIGTERM:
            assert process.returncode == 128 + signal.SIGTERM
            assert "go on with --resume" in err
            assert not list(tmp_path.iterdir())
    code, _, err = run("run", folder / "job.toml", "--out", out, cache=folder / "cache")
    assert code == 2
    assert "--resume" in err
    arguments = ("run", folder / "job.toml", "--out", out, "--resume", "--json")
    code, printed, err = run(*arguments, cache=folder / "cache")
    assert code == 0, err
    first, second = read_manifest(whole[0]), read_manifest(out)
    assert json.loads(printed)["score"] == second.score.model_dump()
    assert first.score == second.score
    for name in ("plan.json", "weights.safetensors"):
        assert (whole[0] / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_ends_with_the_nearest_point(folder: Path, whole: Whole) -> None:
    impossible = folder / "impossible.toml"
    impossible.write_text(JOB.replace('macs = "0.4x"', "artifact_bytes = 1000"))
    code, out, err = run("run", impossible, "--out", folder / "none", cache=folder / "cache")
    assert code == 3
    assert out == ""
    assert "artifact_bytes <= 1000" in err
    assert "nearest is artifact_bytes = " in err
    assert not (folder / "none").exists()


@pytest.mark.slow
def test_an_accuracy_that_is_lost_is_refused_and_the_nearest_bundle_left(folder: Path, whole: Whole) -> None:
    lossy = folder / "lossy.toml"
    text = JOB.replace('macs = "0.4x"', 'macs = "0.03x"\naccuracy_drop = 0.0').replace("epochs = 8", "epochs = 1")
    lossy.write_text(text)
    code, out, err = run("run", lossy, "--out", folder / "lossy", cache=folder / "cache")
    assert (code, out) == (3, "")
    assert "accuracy_drop is" in err
    assert not (folder / "lossy").exists()
    nearest = folder / "lossy.nearest"
    assert str(nearest) in err
    assert json.loads((nearest / "manifest.json").read_text())["kept"] is False
    assert [result.entry for result in read_manifest(nearest).missed] == ["accuracy_drop"]
    assert "This bundle does not keep its budget: accuracy_drop is" in (nearest / "report.html").read_text()
    code, out, _ = run("verify", nearest, cache=folder / "cache")
    assert code == 0
    assert "it does not keep its budget: accuracy_drop is" in out
    # Nobody's file is in the way of the next one.
    (nearest / "mine.txt").write_text("mine")
    code, _, err = run("run", lossy, "--out", folder / "lossy", "--resume", cache=folder / "cache")
    assert code == 2
    assert "mine.txt was added" in err


@pytest.mark.slow
def test_a_plan_alone_is_printed_from_kept_scores(folder: Path, whole: Whole) -> None:
    arguments = ("plan", folder / "job.toml", "--macs", "0.6x", "--json", "--out", folder / "plan.json")
    code, out, err = run(*arguments, cache=folder / "cache")
    assert code == 0, err
    assert "in the cache" in err
    plan = Plan.model_validate_json(out)
    assert plan.cost.macs <= 0.6 * plan.dense.macs
    assert plan.error_source == "layers' outputs on calibration data"
    assert (folder / "plan.json").read_text().strip() == out.strip()


@pytest.mark.slow
def test_the_same_job_plans_the_same_byte_for_byte(folder: Path, whole: Whole) -> None:
    """Also where plans rest on measurements: what a trial took is remembered, unless it was noisy and is not now."""
    plans = []
    for name in ("first.json", "second.json", "third.json"):
        arguments = ("plan", folder / "job.toml", "--latency-ms", "0.6x", "--out", folder / name)
        code, _, err = run(*arguments, cache=folder / "cache")
        assert code == 0, err
        plans.append((folder / name).read_bytes())
    assert plans[2] in plans[:2]


@pytest.mark.slow
def test_other_devices_are_planned_for_from_one_scoring_with_estimates_that_say_so(folder: Path, whole: Whole) -> None:
    devices = ("--device", "raspberry-pi-4", "--device", "raspberry-pi-5")
    arguments = ("plan", folder / "job.toml", *devices, "--latency-ms", "0.6x", "--json")
    code, out, err = run(*arguments, cache=folder / "cache")
    assert code == 0, err
    assert err.count("scored") <= 1
    plans = [Plan.model_validate(plan) for plan in json.loads(out)]
    assert [plan.profile for plan in plans] == ["raspberry-pi-4", "raspberry-pi-5"]
    assert all("estimated" in plan.latency_source for plan in plans)
    assert plans[0].dense.latency_ms > plans[1].dense.latency_ms
    assert all(plan.cost.latency_ms <= 0.6 * plan.dense.latency_ms for plan in plans)


@pytest.mark.slow
def test_a_bundle_is_verified_and_measured_from_the_command_line(folder: Path, whole: Whole) -> None:
    code, out, err = run("verify", whole[0], "--json", cache=folder / "cache")
    assert code == 0, err
    assert json.loads(out)["comparisons"]
    code, out, err = run("bench", whole[0], "--runs", 5, "--json", cache=folder / "cache")
    assert code == 0, err
    (timing,) = json.loads(out)["measurements"]
    assert timing["runtime"] == "litert"
    altered = whole[0] / "plan.json"
    before = altered.read_bytes()
    altered.write_bytes(before.replace(b"host", b"hoax", 1))
    try:
        code, _, err = run("verify", whole[0], cache=folder / "cache")
    finally:
        altered.write_bytes(before)
    assert code == 4
    assert "1 altered: plan.json" in err


@pytest.mark.slow
def test_a_frontier_goes_from_dense_to_the_least_time(folder: Path, whole: Whole) -> None:
    out = folder / "frontier.json"
    arguments = ("plan", folder / "job.toml", "--frontier", 4, "--out", out)
    code, printed, err = run(*arguments, cache=folder / "cache")
    assert code == 0, err
    assert "divergence" in printed
    plans = [Plan.model_validate(plan) for plan in json.loads(out.read_text())]
    times = [plan.cost.latency_ms for plan in plans]
    assert len(plans) > 2
    assert times == sorted(times, reverse=True)
    assert not plans[0].structures()
    divergences = [plan.divergence for plan in plans]
    assert divergences[-1] is not None
    assert divergences[0] is not None
    assert divergences[-1] > divergences[0]
