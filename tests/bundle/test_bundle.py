"""A bundle is whole, says what it is, and shows every altered byte."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.bundle import (
    Delivery,
    Golden,
    Manifest,
    PixelNormalization,
    pack,
    probes,
    read_manifest,
    verify_bundle,
)
from sekron_edge.errors import BundleError, ConfigError, VerificationError
from sekron_edge.latency import LatencyModel
from tests.narrowing import present
from tests.small_bundle import manifest_of, sealed

COST = LatencyModel.estimated(gmacs_per_second=10, values_per_microsecond=1000, call_us=1)


# The bundle's folder, its manifest, and what it was packed from.
Made = tuple[Path, Manifest, tuple[Manifest, se.Plan, Golden, dict[str, torch.Tensor]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bundle")
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16 * 36, 3)
    ).eval()
    x = torch.randn(4, 1, 8, 8)
    plan = se.score(dense, (x[:1],), COST).plan(se.Budget(macs="0.6x"), profile="host", runtime="litert")
    model = se.decompose(dense, plan).eval()
    deliveries = []
    for name in ("litert", "executorch"):
        artifact = se.export(model, (x[:1],), format=name, out=folder / "work")
        check = se.verify(artifact, model, [x])
        deliveries.append(
            Delivery(artifact=artifact, check=check, measured=None, dense_bytes=9, dense_measured=None, snippet="")
        )
    manifest = manifest_of(plan, deliveries, normalization=PixelNormalization(mean=(0.5,), std=(0.25,)))
    golden = Golden((x.numpy(),), (model(x).detach().numpy(),))
    model_state = model.state_dict()
    written = pack(manifest, plan, golden, model_state, folder / "out")
    return folder / "out", written, (manifest, plan, golden, model_state)


@pytest.mark.slow
def test_a_bundle_holds_what_its_manifest_lists_and_checks(made: Made) -> None:
    bundle, written, _ = made
    assert read_manifest(bundle) == written
    check = verify_bundle(bundle)
    assert set(check.comparisons) == {"artifacts/model_fp32.tflite", "artifacts/model_fp32.pte"}
    on_disk = {path.relative_to(bundle).as_posix() for path in files.files_below(bundle)}
    assert on_disk == set(written.files) | {"manifest.json", "manifest.json.sha256"}
    assert {"plan.json", "report.html", "sbom.cdx.json", "golden/inputs.safetensors"} <= on_disk


@pytest.mark.slow
def test_its_artifacts_are_judged_by_the_golden_outputs_wherever_they_run(made: Made, tmp_path: Path) -> None:
    bundle, _, (_, _, golden, _) = made
    found = probes(bundle)
    assert [probe.artifact.path.is_file() for probe in found] == [True, True]
    for probe in found:
        np.testing.assert_array_equal(present(probe.inputs)[0], golden.inputs[0])
        assert "dB" in present(probe.check_outputs)(golden.outputs)
        with pytest.raises(VerificationError, match=r"model_fp32\..* does not give the golden outputs there"):
            present(probe.check_outputs)((golden.outputs[0] + 1,))
    altered = tmp_path / "altered"
    shutil.copytree(bundle, altered)
    path = altered / "golden" / "outputs.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"outputs\.safetensors is missing, or not as it was built"):
        probes(altered)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_anywhere_is_found(made: Made, data: st.DataObject) -> None:
    bundle, _, _ = made
    path = data.draw(st.sampled_from(files.files_below(bundle)))
    position = data.draw(st.integers(0, path.stat().st_size - 1))
    mask = data.draw(st.integers(1, 255))
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[position] ^= mask
    path.write_bytes(altered)
    try:
        with pytest.raises(BundleError, match=re.escape(path.name)):
            verify_bundle(bundle)
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
def test_files_missing_or_added_are_named(made: Made, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made[0], copy)
    (copy / "extra.txt").write_text("x")
    (copy / "plan.json").unlink()
    with pytest.raises(BundleError, match=r"1 missing: plan\.json; 1 added: extra\.txt"):
        verify_bundle(copy)
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        read_manifest(tmp_path)


@pytest.mark.slow
def test_a_bundle_takes_the_place_of_a_bundle_only(made: Made, tmp_path: Path) -> None:
    _, written, (manifest, plan, golden, model_state) = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    (tmp_path / "mine" / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(ConfigError, match="mine is not replaced"):
        pack(manifest, plan, golden, model_state, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    pack(manifest, plan, golden, model_state, tmp_path / "out")
    pack(manifest, plan, golden, model_state, tmp_path / "out")
    assert read_manifest(tmp_path / "out").files["sbom.cdx.json"] == written.files["sbom.cdx.json"]
    assert verify_bundle(tmp_path / "out").files
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt was added to the bundle"):
        pack(manifest, plan, golden, model_state, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_manifest_that_was_sealed_again_says_nothing_that_cannot_be(made: Made, tmp_path: Path) -> None:
    bundle = tmp_path / "out"
    shutil.copytree(made[0], bundle)
    whole = (bundle / "manifest.json").read_text()
    assert read_manifest(bundle) == made[1]
    entry = next(iter(made[1].files))
    for before, after, said in (
        ('"name": "test"', '"name": "/etc/passwd"', "the name is '/etc/passwd'"),
        ('"name": "test"', '"name": "..\\\\x"', "the name is"),
        ('"name": "test"', '"name": "test", "name": "other"', "'name' is given twice"),
        (f'"{entry}"', '"../../outside"', "'../../outside' is "),
        (f'"{entry}"', '"/etc/passwd"', "'/etc/passwd' is "),
        ('"path": "artifacts/', '"path": "../artifacts/', "is delivered, and not among the files"),
        ('"path": "artifacts/', '"path": "/artifacts/', "is delivered, and not among the files"),
        ('"dense_bytes": 9', '"dense_bytes": -9', "dense_bytes is -9"),
        ('"samples": 10', '"samples": -1', "samples is -1"),
        ('"delivered": 0.89', '"delivered": NaN', "delivered is nan"),
        ('"delivered": 0.89', '"delivered": 1e999', "delivered is inf"),
    ):
        assert before in whole
        sealed(bundle, whole.replace(before, after, 1))
        with pytest.raises(BundleError, match=re.escape(said)):
            read_manifest(bundle)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_an_artifact_that_ends_its_process_is_a_failed_verification(made: Made, seed: int, tmp_path: Path) -> None:
    bundle = tmp_path / "out"
    shutil.copytree(made[0], bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    name = next(name for name in manifest["files"] if name.endswith(".tflite"))
    content = bytearray((bundle / name).read_bytes())
    drawn = random.Random(seed)
    for _ in range(200):
        content[drawn.randrange(8, len(content))] = drawn.randrange(256)
    (bundle / name).write_bytes(content)
    digest = files.sha256(bundle / name)
    text = (bundle / "manifest.json").read_text().replace(manifest["files"][name]["sha256"], digest)
    sealed(bundle, text)
    with pytest.raises(VerificationError, match=r"does not run on this machine|golden outputs"):
        verify_bundle(bundle)


@pytest.mark.slow
def test_only_regular_files_that_are_listed_are_a_bundle(made: Made, tmp_path: Path) -> None:
    bundle = tmp_path / "out"
    outside = tmp_path / "outside"
    outside.mkdir()

    def copied() -> None:
        files.remove_folder(bundle)
        shutil.copytree(made[0], bundle)

    def linked(name: str) -> None:
        shutil.move(bundle / name, outside / "moved")
        (bundle / name).symlink_to(outside / "moved")

    changes: list[tuple[Callable[[], None], str]] = [
        ((bundle / "more").mkdir, "more"),
        (lambda: (bundle / "more").symlink_to(outside), "more"),
        (lambda: (bundle / "more").symlink_to("absent"), "more"),
        (lambda: os.mkfifo(bundle / "pipe"), "pipe"),
        (lambda: linked("plan.json"), r"plan\.json"),
        (lambda: linked("artifacts"), "artifacts"),
    ]
    for change, named in changes:
        copied()
        change()
        with pytest.raises(BundleError, match=named):
            verify_bundle(bundle)
        shutil.rmtree(outside)
        outside.mkdir()


@pytest.mark.slow
def test_other_golden_outputs_are_a_failed_verification(made: Made, tmp_path: Path) -> None:
    _, _, (manifest, plan, golden, model_state) = made
    wrong = Golden(golden.inputs, tuple(np.roll(value, 1, 1) for value in golden.outputs))
    pack(manifest, plan, wrong, model_state, tmp_path / "out")
    with pytest.raises(VerificationError, match="golden"):
        verify_bundle(tmp_path / "out")


@pytest.mark.slow
def test_every_python_snippet_runs(made: Made) -> None:
    bundle, written, _ = made
    for delivery in written.deliveries:
        command = [sys.executable, "-W", "ignore", str(bundle / delivery.snippet)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bundle.parent)
        assert done.stdout.strip().splitlines()[-1] in written.labels
    assert "__pycache__" not in {path.name for path in bundle.rglob("*")}


@pytest.mark.slow
def test_the_report_is_one_file_that_needs_no_network(made: Made) -> None:
    page = (made[0] / "report.html").read_text()
    outside = page.replace(present(re.search(r"<script>.*?</script>", page, re.DOTALL))[0], "")
    assert not re.search(r'(src|href)="?https?:', outside)
    assert "Before and after" in page
    for layer in made[2][1].layers:
        assert f"<td>{layer.name}</td>" in page
