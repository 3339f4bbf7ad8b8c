"""Networks with several inputs and outputs of any structure: exported, verified, and in jobs without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from sekron_edge import pytrees
from sekron_edge.artifacts import Precision
from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.data import output_agreement, output_divergence, referenced, unlabelled
from sekron_edge.devices import load_profile
from sekron_edge.errors import ConfigError, DataError, VerificationError
from sekron_edge.nn import outputs_for
from sekron_edge.pipeline import Job, Target, calibration_inputs, example_inputs
from sekron_edge.planner import score
from sekron_edge.training import finetune, train
from sekron_edge.verification import score_artifact
from tests.cost_models import MacsAreTime


class Detector(nn.Module):
    """Two images and a grid without a batch axis in, named outputs of different sizes out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.body = nn.Conv2d(32, 32, 3, padding=1)
        self.scores = nn.Conv2d(32, 4, 1)
        self.boxes = nn.Conv2d(32, 8, 1)

    def forward(self, left: Tensor, right: Tensor, *, grid: Tensor) -> dict[str, Any]:
        pair = torch.cat([self.stem(left).relu(), self.stem(right).relu()], 1)
        y = torch.relu(self.body(pair)) + pair
        boxes = self.boxes(y) * torch.cat([grid, grid])
        return {"logits": self.scores(y).mean((2, 3)), "boxes": [boxes, boxes.mean((2, 3))], "version": 3}


class Pairs(Dataset[dict[str, Tensor]]):
    """Inputs alone; batches are made here, because the grid has no batch axis."""

    def __init__(self, count: int) -> None:
        random = torch.Generator().manual_seed(count)
        self.images = torch.rand(count, 2, 3, 16, 16, generator=random)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"left": self.images[index, 0], "right": self.images[index, 1], "grid": grid()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = self.images[list(indices)]
        return {"left": chosen[:, 0], "right": chosen[:, 1], "grid": grid()}


def grid() -> Tensor:
    return torch.linspace(0.5, 1.5, 8).reshape(1, 8, 1).expand(4, 8, 8).clone()


@pytest.fixture(autouse=True)
def rough_calibration(calibrated: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return Detector().eval()


FORMATS: list[tuple[str, Precision]] = [
    ("litert", "fp32"), ("litert", "int8"), ("executorch", "fp32"), ("coreml", "fp32"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "precision"), FORMATS)
def test_any_structure_is_exported_and_each_output_verified(
    format: str, precision: Precision, detector: nn.Module, tmp_path: Path
) -> None:
    samples = Pairs(16)
    inputs = samples.__getitems__(range(16))
    example = pytrees.first(inputs)
    artifact = se.export(
        detector, example, format=format, precision=precision, out=tmp_path, calibration=inputs
    )  # fmt: skip
    assert [spec.place for spec in artifact.inputs] == ["left", "right", "grid"]
    assert [spec.place for spec in artifact.outputs] == ["logits", "boxes.0", "boxes.1"]
    assert artifact.main_output.place == "logits"
    check = se.verify(artifact, detector, inputs)
    assert check.real.output in ("logits", "boxes.0", "boxes.1")
    other = Detector().eval()
    other.load_state_dict(detector.state_dict())
    other.get_parameter("scores.bias").data += 3
    with pytest.raises(VerificationError, match="logits"):
        se.verify(artifact, other, inputs)


@pytest.mark.slow
def test_a_job_without_labels_keeps_the_originals_outputs(detector: nn.Module, tmp_path: Path) -> None:
    task = unlabelled(Pairs(24), calibration=Pairs(12), heldout=Pairs(8))
    done = se.compress(
        detector,
        pytrees.first(Pairs(1).__getitems__([0])),
        profile="host",
        task=task,
        out=tmp_path / "bundle",
        formats=["litert"],
        precisions=["fp32", "int8"],
        budget=se.Budget(macs="0.6x"),
        runs=4,
        finetuning=se.FinetuneConfig(epochs=2, batch_size=8, threads=1),
    )
    manifest = read_manifest(done.bundle)
    assert manifest.kept
    assert [spec.name for spec in manifest.inputs] == ["left", "right", "grid"]
    assert [spec.name for spec in manifest.outputs] == ["logits", "boxes.0", "boxes.1"]
    assert manifest.score.metric == "agreement with the original"
    assert manifest.score.dense == pytest.approx(1)
    assert 0.5 < manifest.score.delivered <= 1
    assert len(verify_bundle(done.bundle).comparisons) == 2
    assert isinstance(done.model(*[], **Pairs(1).__getitems__([0])), dict)


class Gridded(nn.Module):
    """A grid, a number and an image in, in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, grid: Tensor, scale: float, x: Tensor) -> dict[str, Tensor]:
        y = torch.relu(self.layer(x)) * scale
        return {"logits": self.head(y), "moved": y[:, None] + grid}


class GriddedSamples(Dataset[tuple[Any, ...]]):
    """Of a plain data set: PyTorch's loader makes the batches."""

    def __init__(self, count: int, *, marked: bool = True) -> None:
        self.x, self.marked = torch.rand(count, 8, generator=torch.Generator().manual_seed(0)), marked

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        grid, scale = torch.linspace(0, 1, 24).reshape(3, 8), 2.0
        return (se.Shared(grid), se.Shared(scale), self.x[index]) if self.marked else (grid, scale, self.x[index])


@pytest.mark.parametrize(("format", "precision"), FORMATS[:2])
def test_what_is_shared_comes_first_and_is_verified_and_scored(
    format: str, precision: Precision, tmp_path: Path
) -> None:
    model, samples = Gridded().eval(), GriddedSamples(9)
    task = referenced(unlabelled(samples), model)
    inputs = calibration_inputs(task)
    artifact = se.export(
        model, example_inputs(task), format=format, precision=precision, out=tmp_path, calibration=inputs
    )
    assert [spec.shape for spec in artifact.inputs] == [(3, 8), (1, 8)]
    se.verify(artifact, model, inputs)
    like = outputs_for(model, inputs)
    assert score_artifact(artifact, task, like=like) == pytest.approx(1, abs=1e-3 if precision == "fp32" else 0.1)
    assert se.evaluate(model, task) == pytest.approx(1)
    assert se.measure(artifact, runs=1, inputs=[value.numpy() for value in pytrees.tensors(inputs)]).median_ms > 0


def test_a_job_plans_with_what_is_shared() -> None:
    model, x = Gridded().eval(), torch.ones(1, 8)
    given = (se.Shared(torch.linspace(0, 1, 24).reshape(3, 8)), 2.0, x)
    target = Target.choose(load_profile("host"), formats=["litert"])
    job = Job.prepared(model, given, unlabelled(GriddedSamples(5)), target)
    scores = score(job.model, job.example_inputs, MacsAreTime(), calibration=job.calibration_inputs)
    plan = scores.plan(se.Budget(macs="0.6x"), profile="host", runtime="litert")
    small = finetune(
        se.decompose(model, plan, calibration=job.calibration_inputs), model, job.task,
        config=se.FinetuneConfig(epochs=1, batch_size=2, threads=1), progress=False,
    )  # fmt: skip
    assert 0.5 < se.evaluate(small, job.task) <= 1
    with pytest.raises(DataError, match=r"0 \(3, 8\) float32, .*; a batch of 2 is 0 \(2, 3, 8\) .*sekron_edge\.Shared"):
        Job.prepared(model, given, unlabelled(GriddedSamples(5, marked=False)), target)


class Two(nn.Module):
    """Two positional inputs, a tuple of outputs, one of them a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = self.layer(x) * y
        return z, z.mean()


@pytest.mark.parametrize("format", ["litert", "executorch", "coreml"])
def test_scalar_outputs_and_inputs_in_other_precisions(format: str, tmp_path: Path) -> None:
    model = Two().eval()
    inputs = [torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 8).half()]
    artifact = se.export(model, [value[:1] for value in inputs], format=format, out=tmp_path)
    assert [spec.dtype for spec in artifact.inputs] == ["float32", "float32"]
    se.verify(artifact, model, inputs)


class Words(nn.Module):
    """Numbers of words in."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        logits: Tensor = self.head(self.table(words).mean(1))
        return logits


@pytest.mark.parametrize("format", ["litert", "executorch", "coreml"])
def test_integers_as_inputs(format: str, tmp_path: Path) -> None:
    model, words = Words().eval(), torch.randint(0, 20, (4, 6))
    artifact = se.export(model, words[:1], format=format, out=tmp_path)
    se.verify(artifact, model, words)


def test_a_model_that_does_not_take_its_inputs_is_said(detector: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Detector does not take inputs of shape \(1, 3, 8, 8\)"):
        se.export(detector, torch.zeros(1, 3, 8, 8), format="litert", out=tmp_path)
    with pytest.raises(ConfigError, match="must give tensors; it gave NoneType"):
        se.export(Nothing(), torch.zeros(1), format="litert", out=tmp_path)
    with pytest.raises(ConfigError, match="no loss to train on"):
        train(detector, unlabelled(Pairs(2)))


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (Two(), torch.zeros(1, 8), "Two does not take inputs of shape"),
        (Two(), (torch.zeros(1, 3), torch.zeros(1, 8)), r"Two does not take inputs of shape \(1, 3\), \(1, 8\)"),
        (Two(), None, "Two"),
        (torch.jit.script(nn.Linear(2, 2)), torch.zeros(1, 2), "TorchScript"),
        ({"weight": torch.zeros(1)}, torch.zeros(1, 2), "state dict"),
    ],
    ids=["too few", "another shape", "none", "TorchScript", "a state dict"],
)
def test_what_a_job_cannot_begin_with_is_one_error(model: Any, inputs: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        se.compress(model, inputs, profile="host", task=unlabelled(Pairs(2)), out=tmp_path / "bundle")


def test_a_model_that_gives_nan_is_said(tmp_path: Path) -> None:
    model = Two()
    model.layer.weight.data.fill_(float("nan"))
    inputs = (torch.ones(1, 8), torch.ones(1, 8))
    with pytest.raises(ConfigError, match="Two gives NaN"):
        se.compress(model, inputs, profile="host", task=unlabelled(Pairs(2)), out=tmp_path / "bundle")


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> None:
        del x


def test_a_small_output_counts_like_a_large_one() -> None:
    reference = {"large": torch.ones(2, 100), "small": torch.ones(2, 1), "logits": torch.eye(2) * 9}
    near = {**reference, "small": torch.zeros(2, 1)}
    assert float(output_divergence(reference, reference)) == pytest.approx(0, abs=1e-6)
    assert float(output_divergence(near, reference)) == pytest.approx(1 / 3, abs=1e-5)
    metric = output_agreement()
    metric.update(near, reference)
    metric.update(reference, reference)
    assert float(metric.compute()) == pytest.approx((1 + 0.5 + 1) / 3)
