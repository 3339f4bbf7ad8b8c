"""Jobs end to end with networks whose weights are not all in plain layers; each on a little data of digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.data import ImageData, classification, digits
from sekron_edge.nn import FactorizedLinear
from sekron_edge.task import Task
from sekron_edge.training import TrainConfig, train

ROWS = 8  # a digit's rows are the steps of a sequence


class Encoder(nn.Module):
    """A transformer encoder over the rows of a digit."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, 16)
        self.place = nn.Parameter(torch.zeros(ROWS, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(self.embedding(x.squeeze(1)) + self.place)
        logits: Tensor = self.head(y.mean(1))
        return logits


class Recurrent(nn.Module):
    """A convolution, and an LSTM over the rows of what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.lstm = nn.LSTM(32, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x)).transpose(1, 2).flatten(2)
        y, _ = self.lstm(y)
        logits: Tensor = self.head(y[:, -1])
        return logits


class Tied(nn.Module):
    """An autoencoder's two ends share a weight; a head classifies what is between them and what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(64, 64)
        self.outer = nn.Linear(64, 64)
        self.outer.weight = self.inner.weight
        self.middle = nn.Linear(64, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.outer(F.relu(self.inner(x.flatten(1)))))
        logits: Tensor = self.head(F.relu(self.middle(y)))
        return logits


@pytest.fixture(autouse=True)
def rough_calibration(calibrated: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def task() -> Task:
    whole = digits()
    some = torch.arange(512)
    few = ImageData(
        whole.train_images[some], whole.train_targets[some], whole.heldout_images, whole.heldout_targets, whole.labels
    )
    return classification(few, calibration_samples=64)


def job(model: nn.Module, task: Task, out: Path) -> se.Compressed:
    torch.manual_seed(0)
    trained = train(model, task, config=TrainConfig(epochs=6, learning_rate=0.01, threads=1), progress=False)
    return se.compress(
        trained,
        (torch.zeros(1, 1, 8, 8),),
        profile="host",
        task=task,
        out=out,
        formats=["litert"],
        budget=se.Budget(macs="0.7x"),
        runs=4,
        finetuning=se.FinetuneConfig(epochs=1, threads=1),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Encoder, Recurrent, Tied])
def test_a_job_ends_in_a_bundle_that_keeps_its_budget(kind: type[nn.Module], task: Task, tmp_path: Path) -> None:
    done = job(kind(), task, tmp_path / "bundle")
    assert read_manifest(done.bundle).kept
    assert verify_bundle(done.bundle).comparisons
    assert done.plan.cost.macs <= 0.7 * done.plan.dense.macs
    assert done.plan.cost.parameters == sum(parameter.numel() for parameter in done.model.parameters())
    small = [name for name, module in done.model.named_modules() if isinstance(module, FactorizedLinear)]
    assert small == [layer.name for layer in done.plan.layers if layer.structure is not None]
    reasons = {layer.name: layer.reason for layer in done.plan.layers}
    if kind is Encoder:
        assert {"encoder.layers.0.self_attn.in_proj", "encoder.layers.0.self_attn.out_proj"} <= reasons.keys()
    elif kind is Recurrent:
        assert {"lstm.cells.0.input", "lstm.cells.0.hidden"} <= reasons.keys()
    else:
        model = cast(Tied, done.model)
        assert model.inner.weight is model.outer.weight
        assert "tied" in reasons["inner"]
