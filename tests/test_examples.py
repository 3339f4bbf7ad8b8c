"""Examples and benchmarks run, and say what their text claims."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import dense_int8, examples, zoo
from benchmarks._zoo_network import run_phases
from benchmarks._zoo_phases import PLANS, SCORES, SMALLER, TARGETS, TRACE
from benchmarks._zoo_row import Phase, Row, sources

ROOT = Path(__file__).parents[1]


@pytest.fixture
def calibrated_cache(calibrated: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calibrated(tmp_path / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.usefixtures("calibrated_cache")
def test_your_own_model_is_compressed_in_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["own_model.py", str(tmp_path / "bundle")])
    runpy.run_path(str(ROOT / "examples" / "own_model.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert re.search(r"MACs .* ([2-9]|\d\d)\.\d\dx less", out)
    assert "every budget kept: True" in out


@pytest.mark.slow
@pytest.mark.usefixtures("calibrated_cache")
def test_the_digits_job_is_benchmarked_in_three_formats(tmp_path: Path) -> None:
    bundles = str(tmp_path / "bundles")
    examples.main(["--quick", "--json", str(tmp_path / "out.json"), "--out", bundles])
    found = json.loads((tmp_path / "out.json").read_text())
    assert [row["artifact"] for row in found["rows"]] == ["litert fp32", "executorch fp32", "coreml fp32"]
    assert all(claim["holds"] for claim in found["claims"])
    assert found["environment"]["packages"]["torch"]
    # The dense int8 model that this release does not beat: its benchmark runs on the same bundle, and says so.
    dense_int8.main(["--quick", "--json", str(tmp_path / "int8.json"), "--bundles", bundles])
    compared = json.loads((tmp_path / "int8.json").read_text())
    assert [row["artifact"] for row in compared["rows"]] == ["dense fp32", "dense int8", "delivered fp32"]
    assert all(row["score"] > 0.9 for row in compared["rows"])
    assert len(compared["claims"]) == 2


@pytest.mark.slow
@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: see benchmarks/zoo.py")
def test_two_networks_of_the_zoo_go_through_all_phases(tmp_path: Path) -> None:
    zoo.main(["--quick", "--json", str(tmp_path / "out.json"), "--work", str(tmp_path / "rows")])
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert all(row["trace: macs"] == row["trace: flop_counter_macs"] > 0 for row in rows)
    assert all(value == "ok" for row in rows for key, value in row.items() if key.endswith("outcome"))


def test_what_the_zoo_found_is_kept_and_shown_with_its_reasons(tmp_path: Path) -> None:
    work, name = tmp_path / "rows", "examples:keyword_net"
    counted = {"parameters": 1e6, "macs": 2e6, "flop_counter_macs": 2e6, "covered": 0.5}
    now = Phase(outcome="ok", seconds=1, peak_gib=1, figures=counted, sources=sources(), commit="c0ffee")
    before = now.model_copy(update={"sources": "others", "figures": {"snr_db": 70.0}})
    refused = now.model_copy(update={"outcome": "refused: no form of frobnicate", "figures": {}})
    phases = {TRACE: now, **dict.fromkeys(TARGETS, refused), "LiteRT fp32": before}
    work.mkdir()
    (work / "examples-keyword_net.json").write_text(Row(network=name, phases=phases).model_dump_json())
    page, out = tmp_path / "zoo.md", tmp_path / "out.json"
    zoo.main(["--only", name, "--keep", "--json", str(out), "--work", str(work), "--markdown", str(page)])
    text = page.read_text()
    assert "c0ffee (6)" in text
    assert "| 1.00 M | 2.0 M | 50.0% | 70 | (1) | (2) | (3) | (4) |" in text
    assert f"1. {name}, ExecuTorch fp32: refused: no form of frobnicate" in text
    claims = {claim["name"]: claim["value"] for claim in json.loads(out.read_text())["claims"]}
    assert claims["networks"] == 1
    assert claims["networks whose MACs are not FlopCounterMode's"] == claims["raw exceptions"] == 0
    assert claims["dense, verified in all formats, fp32"] == 0
    assert "Plans were not made in this run" in text
    others = f"{name},examples:DnCNN"  # which was never run, and is not now
    zoo.main(["--only", others, "--stored", "--json", str(out), "--work", str(work), "--markdown", str(page)])
    assert page.read_text().partition("## Exports")[2] == text.partition("## Exports")[2]
    assert [path.name for path in work.iterdir()] == ["examples-keyword_net.json"]


def test_plans_of_the_zoo_are_shown_beside_what_they_choose_from(tmp_path: Path) -> None:
    work, name = tmp_path / "rows", "examples:keyword_net"
    counted = {"parameters": 1e6, "macs": 2e6, "flop_counter_macs": 2e6, "covered": 0.5}
    now = Phase(outcome="ok", seconds=1, peak_gib=1, figures=counted, sources=sources(), commit="c0ffee")
    exported = now.model_copy(update={"figures": {"snr_db": 70.0}})
    scores = {"layers": 9.0, "candidates": 1234.0, "least fp32": 0.25, "least int8": 0.75}
    planned = {"latency": 0.5, "MACs": 0.4, "snr_db": 110.0}
    refused = now.model_copy(update={"outcome": "refused: no form of frobnicate", "figures": {}})
    phases = {
        TRACE: now, **dict.fromkeys(TARGETS, exported), SCORES: now.model_copy(update={"figures": scores}),
        "LiteRT fp32 planned": now.model_copy(update={"figures": planned}), "LiteRT int8 planned": refused,
    }  # fmt: skip
    work.mkdir()
    (work / "examples-keyword_net.json").write_text(Row(network=name, phases=phases).model_dump_json())
    page, out = tmp_path / "zoo.md", tmp_path / "out.json"
    zoo.main(["--only", name, "--json", str(out), "--work", str(work), "--markdown", str(page)])
    text = page.read_text()
    assert f"| {name} | 9 | 1,234 | 0.25 | 0.50 | 0.40 | 110 | 0.75 | (1) |  |  |" in text
    assert f"1. {name}, LiteRT int8 planned: refused: no form of frobnicate" in text
    (claim,) = (c for c in json.loads(out.read_text())["claims"] if c["name"].startswith("decomposed as planned"))
    assert (claim["value"], claim["limit"], claim["holds"]) == (1, 1.8, False)


@pytest.mark.slow
def test_a_network_of_the_zoo_is_planned_decomposed_and_verified_in_both_precisions(
    calibrated: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path))
    for precision in SMALLER.values():
        calibrated(tmp_path, precision)
    run_phases("examples:keyword_net", tmp_path / "row.json", PLANS)
    row = Row.model_validate_json((tmp_path / "row.json").read_bytes())
    assert {phase.outcome for phase in row.phases.values()} == {"ok"}
    for name, precision in SMALLER.items():
        assert row.phases[name].figures["latency"] <= max(0.5, 1.02 * row.phases[SCORES].figures[f"least {precision}"])
        assert row.phases[name].figures["MACs"] < 1


def test_a_zoo_without_its_packages_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_spec("timm") is None:
        zoo.main(["--quick", "--json", str(tmp_path / "out.json"), "--work", str(tmp_path / "rows")])
        assert "the networks of timm are left out: it is not installed" in capsys.readouterr().err
        assert not any(claim["holds"] for claim in json.loads((tmp_path / "out.json").read_text())["claims"][:1])


@pytest.mark.parametrize("job", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_job_is_a_correct_file(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sekron_edge.pipeline import load_config

    monkeypatch.setenv("SEKRON_EDGE_DATA", "data")
    assert load_config(job).budget.accuracy_drop


def test_the_task_of_ones_own_knows_how_far_a_digit_was_turned() -> None:
    from sekron_edge.pipeline import load_config, load_task

    task = load_task(load_config(ROOT / "examples" / "turned_digits.toml"))
    image, angle = task.heldout[0]
    assert image.shape == (1, 16, 16)
    assert 0 < abs(float(angle)) <= 45
    assert task.loss is not None
    assert float(task.loss(angle[None], angle[None])) == 0
    assert (task.metric_unit, task.higher_is_better) == ("degrees", False)
