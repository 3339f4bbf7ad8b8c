"""Layers that are kept in float are float in the file, and the file computes what its simulation computes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import Artifact, export, get_exporter, predict, require_keeping
from sekron_edge.errors import ConfigError, VerificationError
from sekron_edge.exporters._around_floats import Step, staying_in_float
from sekron_edge.exporters.executorch._kept import Rounded
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.quantization import simulated
from sekron_edge.structure import tucker2
from sekron_edge.verification import TOLERANCES, compare, verify

_WITH_WEIGHTS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


class Drawn(nn.Module):
    """A small network: a stem, residual blocks, a head; its widths and layers are drawn."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw, width = random.Random(seed), random.Random(seed).choice([4, 8])
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=draw.choice([1, 2]), padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, draw.choice([1, 3]), padding="same"), nn.ReLU6())
            for _ in range(draw.choice([1, 2]))
        )
        self.pool = draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Identity()])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 6), nn.ReLU())
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        logits: Tensor = self.last(self.head(self.pool(x)))
        return logits


def drawn(seed: int) -> tuple[nn.Module, list[str]]:
    """Return a network with one factorized layer, and some of its layers; two at least are left out."""
    torch.manual_seed(seed)
    dense = Drawn(seed)
    layer = dense.get_submodule("blocks.0.0")
    assert isinstance(layer, nn.Conv2d)
    model = se.replace_layers(dense, {"blocks.0.0": tucker2(tuple(layer.weight.shape), 3, 2)}).eval()
    names = [name for name, own in dense.named_modules() if isinstance(own, nn.Conv2d | nn.Linear)]
    return model, random.Random(seed + 1).sample(names, min(1 + seed % 3, len(names) - 2))


def factors(model: nn.Module, names: list[str]) -> int:
    """Return the number of weights that layers hold."""
    return sum(parameter.ndim > 1 for name in names for parameter in model.get_submodule(name).parameters())


def assert_as_simulated(artifact: Artifact, model: nn.Module, x: Tensor, kept: list[str]) -> None:
    """The file is nearer to its simulation than rounding takes either from the model."""
    (got,) = predict(get_exporter(artifact.format).load(artifact), artifact, [x.numpy()])
    with torch.no_grad():
        rounded, exact = simulated(model, x, kept)(x).numpy(), model(x).numpy()
    in_file, in_simulation = (compare([exact], [one]).snr_db for one in (got, rounded))
    assert compare([rounded], [got]).snr_db > 25
    # Files round means and pools as well, and ExecuTorch's ranges are of histograms.
    assert in_file > in_simulation - 8


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_litert_files_are_as_simulated_and_only_what_is_kept_is_float(seed: int, tmp_path: Path) -> None:
    model, kept = drawn(seed)
    x = torch.randn(16, 3, 16, 16)
    artifact = export(model, x[:1], format="litert", precision="int8", out=tmp_path, calibration=x, keep_float=kept)
    assert artifact.keep_float == tuple(kept)
    assert_as_simulated(artifact, model, x, kept)
    graph = read_file(artifact.path).main
    kinds = [graph.tensors[one.outputs[0]].kind for one in graph.operators if one.kind in _WITH_WEIGHTS]
    assert kinds.count("FLOAT32") == factors(model, kept)
    assert set(kinds) == {"FLOAT32", "INT8"}
    assert (artifact.inputs[0].dtype == "float32") is ("stem.0" in kept)
    assert (artifact.outputs[0].dtype == "float32") is ("last" in kept)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_executorch_files_are_as_simulated_and_hold_what_is_kept_in_float(seed: int, tmp_path: Path) -> None:
    model, kept = drawn(seed)
    kept = sorted({*kept, "last"})
    x = torch.randn(8, 3, 16, 16)
    artifact = export(model, x[:1], format="executorch", precision="int8", out=tmp_path, calibration=x, keep_float=kept)
    assert artifact.delegated == 1.0
    assert_as_simulated(artifact, model, x, kept)
    content = artifact.path.read_bytes()
    assert model.get_parameter("last.weight").detach().numpy().tobytes() in content
    rounded = export(model, x[:1], format="executorch", precision="int8", out=tmp_path, name="r", calibration=x)
    assert model.get_parameter("last.weight").detach().numpy().tobytes() not in rounded.path.read_bytes()


@pytest.mark.slow
def test_layers_of_models_of_any_structure_are_named_as_in_the_model(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, *, features: Tensor) -> dict[str, Tensor]:
            return {"logits": self.last(self.first(features).relu())}

    model, x = Named().eval(), {"features": torch.randn(32, 6)}
    one = {"features": x["features"][:1]}
    artifact = export(model, one, format="litert", precision="int8", out=tmp_path, calibration=x, keep_float=["last"])
    assert artifact.keep_float == ("last",)
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("int8", "float32")
    assert verify(artifact, model, x, calibration=x, tolerance=TOLERANCES["int8"].of_outputs()).real.snr_db > 25


@pytest.mark.slow
def test_the_first_layer_that_differs_is_looked_for_with_the_same_layers_in_float(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
    x = torch.randn(32, 6)
    artifact = export(model, x[:1], format="litert", precision="int8", out=tmp_path, calibration=x, keep_float=["2"])
    with torch.no_grad():
        model[2].get_parameter("weight").mul_(-1)
    with pytest.raises(VerificationError, match="A fresh export of the model agrees"):
        verify(artifact, model, x, calibration=x)


@pytest.mark.parametrize(
    ("format", "precision", "names", "said"),
    [
        ("litert", "int8", ["lats"], "no layer is named 'lats'.*as last"),
        ("litert", "int8", ["pool"], "'pool' is not rounded"),
        ("litert", "int8", "last", "must be a list of names"),
        ("litert", "fp32", ["last"], "litert keeps no layers in float in fp32; these do: executorch in int8, litert"),
        ("coreml", "int8", ["last"], "coreml keeps no layers in float in int8"),
        ("executorch:coreml", "int8", ["last"], "executorch:coreml keeps no layers"),
        ("tflm", "int8", ["last"], "tflm keeps no layers"),
    ],
)
def test_what_cannot_be_kept_in_float_is_refused(
    format: str, precision: str, names: list[str], said: str, tmp_path: Path
) -> None:
    x = torch.randn(2, 3, 16, 16)
    with pytest.raises(ConfigError, match=said):
        export(
            Drawn(0), x[:1], format=format, precision=precision, out=tmp_path, calibration=x, keep_float=names,  # type: ignore[arg-type]
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_formats_that_keep_layers_are_not_refused() -> None:
    for name in ("litert", "executorch"):
        require_keeping(name, "int8")


def test_what_passes_values_on_between_floats_stays_in_float() -> None:
    """Graph: input x -> pad -> A (kept) -> relu -> B (kept) -> pool -> C (rounded) -> relu -> D (kept) -> output."""
    steps = [
        Step(("x",), ("padded",), "passing"),
        Step(("padded",), ("a",), "kept"),
        Step(("a",), ("relu",), "passing"),
        Step(("relu",), ("b",), "kept"),
        Step(("b",), ("pooled",), "passing"),
        Step(("pooled",), ("c",), "rounded"),
        Step(("c",), ("again",), "passing"),
        Step(("again",), ("d",), "kept"),
    ]
    floats = staying_in_float(steps, ["x"], ["d"])
    assert floats.steps == {0, 1, 2, 3, 7}
    assert floats.values == {"x", "d"}


def test_nodes_of_kept_layers_are_known_by_their_weights() -> None:
    model, _ = drawn(3)
    graph = torch.export.export(model, (torch.randn(1, 3, 16, 16),)).module(check_guards=False).graph
    may_round = Rounded(["blocks.0.0", "last"])
    weighted = [node for node in graph.nodes if node.name.startswith(("conv2d", "linear"))]
    assert sum(not may_round(node) for node in weighted) == factors(model, ["blocks.0.0", "last"])
    with pytest.raises(ValueError, match="leave no operator"):
        Rounded(["nowhere"])(graph.find_nodes(op="output")[0])
