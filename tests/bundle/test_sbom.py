"""A bundle's bill of materials names its models with their hashes, and the packages that made them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.artifacts import Artifact, TensorSpec
from sekron_edge.bundle import Delivery, Manifest
from sekron_edge.bundle._sbom import bill_of_materials
from tests.cost_models import MacsAreTime
from tests.small_bundle import manifest_of
from tests.test_sbom import require_cyclonedx

SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32")


def artifact(path: Path, format: str, versions: dict[str, str], before: Artifact | None = None) -> Artifact:
    return Artifact.describe(
        path, format=format, precision="fp32", inputs=[SPEC], outputs=[SPEC], versions=versions, compiled_from=before
    ).model_copy(update={"path": Path("artifacts") / path.name})


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Of a bundle with a file, a file that was compiled from another, and a folder."""
    artifacts = tmp_path / "artifacts"
    (artifacts / "model.mlpackage" / "Data").mkdir(parents=True)
    for name in ("model.pte", "model.tflite", "model_vela.tflite", "model.mlpackage/Data/weights"):
        (artifacts / name).write_text(name)
    (tmp_path / "weights.safetensors").write_text("weights")
    first = artifact(artifacts / "model.tflite", "tflm", {"litert-torch": "0.1", "torch": "2.0+cpu"})
    made = [
        artifact(artifacts / "model.pte", "executorch", {"torch": "2.0+cpu"}),
        artifact(artifacts / "model_vela.tflite", "ethos-u", {"not-installed_x": "7", "Some SDK": "1"}, first),
        artifact(artifacts / "model.mlpackage", "coreml", {"coremltools": "9.0", "python": "3.0"}),
    ]
    plan = se.score(nn.Linear(2, 2), (torch.ones(1, 2),), MacsAreTime()).plan(se.Budget(), profile="host", runtime="x")
    deliveries = [
        Delivery(artifact=one, check=None, measured=None, dense_bytes=9, dense_measured=None, snippet="")
        for one in made
    ]
    update = {"created_at": datetime(2026, 1, 2, tzinfo=UTC), "versions": {"python": "3.11.7", "torch": "2.0+cpu"}}
    return manifest_of(plan, deliveries).model_copy(update=update)


def test_it_names_models_with_hashes_and_the_packages_that_made_them(manifest: Manifest, tmp_path: Path) -> None:
    text = bill_of_materials(manifest, tmp_path)
    require_cyclonedx(text)
    assert bill_of_materials(manifest, tmp_path) == text
    read = json.loads(text)
    assert read["metadata"]["timestamp"].startswith("2026-01-02T00:00:00")
    assert read["metadata"]["component"]["name"] == manifest.name
    components: dict[str, dict[str, Any]] = {each["bom-ref"]: each for each in read["components"]}
    models = {ref for ref, each in components.items() if each["type"] == "machine-learning-model"}
    assert models == {
        "weights.safetensors", "artifacts/model.pte", "artifacts/model.tflite", "artifacts/model_vela.tflite",
        "artifacts/model.mlpackage",
    }  # fmt: skip
    (file,) = components["artifacts/model.mlpackage"]["components"]
    assert file["name"] == "artifacts/model.mlpackage/Data/weights"
    for one in (file, *(components[ref] for ref in models if ref != "artifacts/model.mlpackage")):
        assert one["hashes"] == [{"alg": "SHA-256", "content": files.sha256(tmp_path / one["name"])}]
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in read["dependencies"]}
    (ours,) = (ref for ref in components if ref.startswith("pkg:pypi/sekron-edge@"))
    assert needs["bundle"] == models
    assert needs["artifacts/model.pte"] == {ours, "pkg:pypi/torch@2.0%2Bcpu"}
    assert needs["artifacts/model_vela.tflite"] == {
        ours, "pkg:pypi/not-installed-x@7", "pkg:pypi/some%20sdk@1", "artifacts/model.tflite",
    }  # fmt: skip
    assert needs[ours] >= {"pkg:pypi/torch@2.0%2Bcpu", "pkg:generic/python@3.11.7"}
    assert "licenses" in components["pkg:pypi/torch@2.0%2Bcpu"]
    assert {components[ref]["scope"] for ref in components.keys() - models} == {"excluded"}
