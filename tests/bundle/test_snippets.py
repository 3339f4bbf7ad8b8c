"""The code that comes with artifacts takes all inputs and gives all outputs, by their names in the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import Artifact, Precision, TensorSpec, get_exporter
from sekron_edge.bundle import Delivery
from sekron_edge.bundle._snippets import snippet
from tests.bundle.test_bundle import COST
from tests.small_bundle import manifest_of


class Pair(nn.Module):
    """Two inputs, two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3), nn.Linear(6, 3)

    def forward(self, image: Tensor, *, words: Tensor) -> dict[str, Tensor]:
        seen = self.stem(image).relu()
        return {"features": seen, "logits": self.head(seen.mean((2, 3)).repeat(1, 2)[:, :6] + words)}


INPUTS = {"image": torch.rand(1, 1, 8, 8), "words": torch.rand(1, 6)}


def exported(format: str, precision: Precision, folder: Path) -> Artifact:
    torch.manual_seed(0)
    many = {name: value.repeat(8, *[1] * (value.ndim - 1)) for name, value in INPUTS.items()}
    return se.export(
        Pair().eval(), INPUTS, format=format, precision=precision, out=folder / "artifacts", calibration=many
    )


def written(artifact: Artifact, folder: Path, labels: tuple[str, ...] = ()) -> tuple[Path, str]:
    """Write the code beside an artifact, as in a bundle."""
    model = nn.Sequential(nn.Linear(2, 2))
    plan = se.score(model, torch.ones(1, 2), COST).plan(se.Budget(), profile="host", runtime="litert")
    relative = artifact.model_copy(update={"path": artifact.path.relative_to(folder)})
    delivery = Delivery(artifact=relative, check=None, measured=None, dense_bytes=9, dense_measured=None, snippet="")
    manifest = manifest_of(plan, [delivery]).model_copy(update={"labels": labels, "normalization": None})
    name, text = snippet(relative, manifest, get_exporter(artifact.format))
    path = folder / "snippets" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path, text


@pytest.mark.parametrize(
    ("format", "precision"),
    [("litert", "fp32"), ("litert", "int8"), pytest.param("executorch", "fp32", marks=pytest.mark.slow)],
)
def test_python_runs_with_all_inputs_and_outputs(format: str, precision: Precision, tmp_path: Path) -> None:
    artifact = exported(format, precision, tmp_path)
    path, text = written(artifact, tmp_path)
    done = subprocess.run([sys.executable, "-W", "ignore", path], capture_output=True, text=True, check=True)
    shape = tuple(artifact.outputs[0].shape)
    assert done.stdout.strip().splitlines()[-2:] == [f"features {shape}", "logits (1, 3)"]
    assert '"image": ([1, ' in text
    assert '"words": ([1, 6], ' in text
    path, _ = written(artifact, tmp_path, ("a", "b", "c"))
    done = subprocess.run([sys.executable, "-W", "ignore", path], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] in ("a", "b", "c")


@pytest.mark.parametrize(
    ("format", "name"),
    [("coreml", "model_fp32_coreml.swift"), ("tflm", "model_int8_tflm.cc"), ("ethos-u", "model_int8.txt")],
)
def test_other_code_names_all_inputs_and_outputs(format: str, name: str, tmp_path: Path) -> None:
    quantized = format != "coreml"
    specs = [
        TensorSpec(name=f"serving_{place}", shape=shape, dtype="int8" if quantized else "float32", place=place)
        for place, shape in (("image", (1, 1, 8, 8)), ("words", (1, 6)), ("features", (1, 4)), ("logits", (1, 3)))
    ]
    file = tmp_path / "artifacts" / name.replace("_coreml.swift", ".mlpackage").replace("_tflm.cc", ".tflite")
    file.parent.mkdir()
    file.write_bytes(b"")
    artifact = Artifact.describe(
        file, format=format, precision="int8" if quantized else "fp32", inputs=specs[:2], outputs=specs[2:], versions={}
    )
    path, text = written(artifact, tmp_path)
    assert path.name.startswith("model_")
    assert all(spec.place in text for spec in specs)
    if format == "coreml":
        assert all(f'"{spec.name}"' in text for spec in specs)
    elif format == "tflm":
        assert "bool Run(const int8_t* input_0, const int8_t* input_1, int8_t* output_0, int8_t* output_1) {" in text
