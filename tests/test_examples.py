"""Examples and benchmarks run, and say what their text claims."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_your_own_model_is_compressed_in_python(tmp_path):
    out = run("examples/own_model.py", tmp_path / "bundle")
    assert re.search(r"MACs .* ([2-9]|\d\d)\.\d\dx less", out)
    assert "every budget kept: True" in out


@pytest.mark.slow
def test_the_digits_job_is_benchmarked_in_three_formats(tmp_path):
    run("-m", "benchmarks.examples", "--quick", "--json", tmp_path / "out.json", "--out", tmp_path / "bundles")
    found = json.loads((tmp_path / "out.json").read_text())
    assert [row["artifact"] for row in found["rows"]] == ["litert fp32", "executorch fp32", "coreml fp32"]
    assert all(claim["holds"] for claim in found["claims"])
    assert found["environment"]["packages"]["torch"]
    # The dense int8 model that this release does not beat: its benchmark runs on the same bundle, and says so.
    run("-m", "benchmarks.dense_int8", "--quick", "--json", tmp_path / "int8.json", "--bundles", tmp_path / "bundles")
    compared = json.loads((tmp_path / "int8.json").read_text())
    assert [row["artifact"] for row in compared["rows"]] == ["dense fp32", "dense int8", "delivered fp32"]
    assert all(row["score"] > 0.9 for row in compared["rows"])
    assert len(compared["claims"]) == 2


@pytest.mark.parametrize("job", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_job_is_a_correct_file(job, monkeypatch):
    from sekron_edge.pipeline import load_config

    monkeypatch.setenv("SEKRON_EDGE_DATA", "data")
    assert load_config(job).budget.accuracy_drop
