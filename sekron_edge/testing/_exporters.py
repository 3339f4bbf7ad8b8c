"""What every exporter must keep, as pytest tests."""

from __future__ import annotations

import ast
import copy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from jinja2 import Template
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.artifacts import (
    Artifact,
    DeviceExporter,
    Exporter,
    Precision,
    PrimitiveExporter,
    SdkExporter,
    SizedExporter,
    SnippetExporter,
    TensorSpec,
    TracedPrimitiveExporter,
    export,
    exporter_origin,
    get_exporter,
    predict,
)
from sekron_edge.data import classification, collate, load_source
from sekron_edge.errors import DeviceError, ExportError
from sekron_edge.measurement import AndroidExporter, Conditions, MeasurementRequest
from sekron_edge.structure import full, tucker2
from sekron_edge.task import Task
from sekron_edge.training import TrainConfig, train
from sekron_edge.verification import score_artifact

_IMAGE = (1, 3, 16, 16)
_EVERYWHERE = {"torch", "numpy"}  # what the contract's own models need


class _Branching(nn.Module):
    """Branches on the values of its input, which no format takes."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def _network() -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    structures = {"0": tucker2((16, 3, 3, 3), 8, 3), "3": full([(4, 4, 3, 1), (8, 4, 1, 3)], [8])}
    return se.replace_layers(dense, structures).eval()


@cache
def _digits() -> tuple[nn.Module, Task]:
    """Train a small CNN with a factorized layer on handwritten digits."""
    task = classification(load_source("digits"), calibration_samples=256)
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    model = se.replace_layers(dense, {"4": tucker2((32, 16, 3, 3), 12, 8)})
    return train(model, task, config=TrainConfig(epochs=4, threads=1), progress=False), task


class ExporterContract:
    """Inherit, and set ``format`` and, per precision, the largest error relative to the largest output.

    ``float_format`` is the format that int8 accuracy is held against, where this one has no floats.
    """

    format: str
    tolerance: ClassVar[dict[str, float]]
    float_format: str | None = None

    @pytest.fixture
    def exporter(self) -> Exporter:
        """Return the exporter under test."""
        return get_exporter(self.format)

    @pytest.mark.slow
    def test_every_precision_computes_what_the_model_computes(self, exporter: Exporter, tmp_path: Path) -> None:
        """A model with factorized layers; a batch of several runs in pieces; the model is left as it was."""
        model, x, calibration = _network(), torch.randn(3, *_IMAGE[1:]), (torch.randn(32, *_IMAGE[1:]),)
        expected = model(x).detach().numpy()
        before = copy.deepcopy(model.state_dict())
        model.train()
        for precision in exporter.precisions:
            path = tmp_path / f"model_{precision}{exporter.suffix}"
            artifact = exporter.export(
                model, (torch.randn(_IMAGE),), precision=precision, path=path, calibration=calibration
            )
            assert (artifact.format, artifact.precision, artifact.path) == (self.format, precision, path)
            assert artifact.size_bytes == files.size_bytes(path)
            assert artifact.sha256 == files.sha256(path)
            session = exporter.load(artifact)
            assert session.runtime
            assert session.runtime_version
            (actual,) = predict(session, artifact, [x.numpy()])
            assert np.abs(actual - expected).max() <= self.tolerance[precision] * np.abs(expected).max()
        assert model.training
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())

    @pytest.mark.slow
    def test_int8_keeps_the_accuracy_of_floats(self, exporter: Exporter, tmp_path: Path) -> None:
        """On all held-out digits, within half a point of the float artifact."""
        if "int8" not in exporter.precisions:
            pytest.skip(f"{self.format} has no int8")
        model, task = _digits()
        inputs, _ = collate([task.calibration[index] for index in range(128)])

        def score(format: str, precision: Precision) -> float:
            artifact = export(
                model, (inputs[:1],), format=format, precision=precision, out=tmp_path, calibration=(inputs,)
            )
            return score_artifact(artifact, task)

        in_float, in_int8 = score(self.float_format or self.format, "fp32"), score(self.format, "int8")
        assert in_float > 0.9
        assert in_float - in_int8 <= 0.005

    @pytest.mark.slow
    def test_weights_may_lie_in_memory_as_they_like(self, exporter: Exporter, tmp_path: Path) -> None:
        """A model that was trained channels-last computes the same when it is exported, weights of equal shape too."""
        structure = full([(16, 1, 3, 1), (1, 16, 1, 3)], [12])
        dense = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1))
        model, x = se.replace_layers(dense, {"0": structure, "1": structure}), torch.randn(4, 16, 8, 8)
        expected = model(x).detach().numpy()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        precision = exporter.precisions[0]
        path = tmp_path / f"model{exporter.suffix}"
        artifact = exporter.export(model, (x[:1],), precision=precision, path=path)
        (actual,) = predict(exporter.load(artifact), artifact, [x.numpy()])
        assert np.abs(actual - expected).max() <= self.tolerance[precision] * np.abs(expected).max()

    @pytest.mark.slow
    def test_weights_that_are_nan_are_refused(self, exporter: Exporter, tmp_path: Path) -> None:
        """One clear error that names the weight, before the conversion; nothing is written."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        with torch.no_grad():
            model[1].get_parameter("weight")[0, 1] = torch.nan
        with pytest.raises(ExportError, match=r"1\.weight holds NaN"):
            exporter.export(
                model, (torch.randn(1, 3),), precision=exporter.precisions[0], path=tmp_path / f"m{exporter.suffix}"
            )
        assert not list(tmp_path.iterdir())

    @pytest.mark.slow
    def test_a_failed_export_leaves_what_stood_there(self, exporter: Exporter, tmp_path: Path) -> None:
        """One clear error that names the model; no file appears, none is lost."""
        path = tmp_path / f"model{exporter.suffix}"
        path.write_text("before")
        with pytest.raises(ExportError, match="_Branching"):
            exporter.export(_Branching(), (torch.randn(1, 3),), precision=exporter.precisions[0], path=path)
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.slow
    def test_a_broken_file_is_one_clear_error(self, exporter: Exporter, tmp_path: Path) -> None:
        """Rubbish, and a file cut short, name the path."""
        precision = exporter.precisions[0]
        path = tmp_path / f"model{exporter.suffix}"
        artifact = exporter.export(_network(), (torch.randn(_IMAGE),), precision=precision, path=path)
        for file in files.files_below(path):
            whole = file.read_bytes()
            for broken in (b"not a model at all", whole[: len(whole) // 2]):
                file.write_bytes(broken)
                with pytest.raises(ExportError, match="model"):
                    exporter.load(artifact)
            file.write_bytes(whole)
        exporter.load(artifact)

    def test_the_module_imports_no_sdk(self, exporter: Exporter) -> None:
        """Importing the exporter's module, and asking what is available, imports none of the SDKs."""
        heavy = {"coremltools", "executorch", "litert_torch", "ai_edge_litert", "tensorflow"}
        if isinstance(exporter, SdkExporter):
            heavy |= set(exporter.sdk.packages.values()) - _EVERYWHERE
        origin = exporter_origin(self.format)
        program = (
            "import sys; from sekron_edge.artifacts import ExporterOrigin, exporter_of;"
            f"origin = {None if origin is None else origin.model_dump_json()!r};"
            "origin = origin and ExporterOrigin.model_validate_json(origin);"
            f"exporter_of({self.format!r}, origin).availability();"
            f"print([name for name in {sorted(heavy)!r} if name in sys.modules])"
        )
        spoken = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert spoken.stdout.strip() == "[]"

    def test_what_travels_to_devices_is_one_file_for_python_3_8(self, exporter: Exporter) -> None:
        """Of the standard library, numpy and the runtime; it has the class that is named."""
        runtime = exporter.device_runtime if isinstance(exporter, DeviceExporter) else None
        if runtime is None:
            pytest.skip(f"{self.format} brings no runtime for devices")
        tree = ast.parse(runtime.source.read_text(encoding="utf-8"), feature_version=(3, 8))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert all(node.level == 0 for node in imports)
        imported |= {str(node.module) for node in imports}
        assert "sekron_edge" not in {name.partition(".")[0] for name in imported}
        assert runtime.name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}

    def test_the_snippet_is_a_template(self, exporter: Exporter) -> None:
        """Of a file that is named after the artifact."""
        snippet = exporter.snippet() if isinstance(exporter, SnippetExporter) else None
        if snippet is None:
            pytest.skip(f"{self.format} brings no snippet")
        assert snippet.name.format(stem="model").startswith("model")
        assert Template(snippet.template)

    def test_the_android_tool_is_launched_with_the_model_and_refuses_rubbish(self, exporter: Exporter) -> None:
        """It also says how inputs are handed over and where outputs are."""
        tool = exporter.android_tool if isinstance(exporter, AndroidExporter) else None
        if tool is None:
            pytest.skip(f"{self.format} names no program for Android")
        request = MeasurementRequest((_described(exporter),), Conditions(runs=4))
        launches = tool.launches("model.bin", request)
        assert launches
        assert all(any("model.bin" in argument for argument in arguments) for arguments in launches)
        assert any("0.in" in argument for argument in tool.given(_described(exporter), ["0.in"]))
        assert tool.answers(1)
        with pytest.raises(DeviceError, match=tool.name):
            tool.read(["rubbish"] * len(launches), request)

    def test_what_is_planned_and_calibrated_is_exported(self, exporter: Exporter) -> None:
        """Sizes of files, and operations that are timed, are of precisions that the exporter has."""
        if isinstance(exporter, SizedExporter):
            assert set(exporter.file_costs) <= set(exporter.precisions)
        if isinstance(exporter, PrimitiveExporter | TracedPrimitiveExporter):
            assert set(exporter.primitive_precisions) <= set(exporter.precisions)
            assert exporter.primitive_count > 0


def _described(exporter: Exporter) -> Artifact:
    """Return the description of an artifact that is not there."""
    spec = TensorSpec(name="x", shape=(1, 2), dtype="float32")
    return Artifact(
        format=exporter.name, precision=exporter.precisions[0], path=Path(f"model{exporter.suffix}"), inputs=(spec,),
        outputs=(spec,), size_bytes=0, sha256="", versions={},
    )  # fmt: skip
