"""Distillation against rounding: where int8 costs too much, and only there."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sekron_edge.data import classification, load_source
from sekron_edge.devices import load_profile
from sekron_edge.pipeline import Job, LogProgress, Target, calibration_inputs, example_inputs
from sekron_edge.pipeline._rounding import settle_rounding
from sekron_edge.quantization import QuantizationConfig, simulated
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig, evaluate, train

_OUTLIER = 1000


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Task]:
    task = classification(load_source("digits"), calibration_samples=256)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    return train(model, task, config=TrainConfig(epochs=4, threads=1), progress=False), task


def _with_an_outlier(model: nn.Module) -> nn.Module:
    """Make one channel far larger, and what reads it as much smaller: the same function, hard to round."""
    first, second = model.get_submodule("1"), model.get_submodule("4")
    with torch.no_grad():
        for name in ("weight", "bias"):
            first.get_parameter(name)[0] *= _OUTLIER
        second.get_parameter("weight")[:, 0] /= _OUTLIER
    return model


def _settle(model: nn.Module, teacher: nn.Module, task: Task, tmp_path: Path, **config: Any) -> tuple[nn.Module, bool]:
    job = Job(
        teacher, example_inputs(task), task, Target.choose(load_profile("host"), precisions=["int8"]),
        finetuning=FinetuneConfig(threads=1), quantization=QuantizationConfig(**config),
    )  # fmt: skip
    return settle_rounding(model, job, checkpoints=tmp_path, progress=LogProgress())


def test_a_model_that_rounds_well_is_left_as_it_is(trained: tuple[nn.Module, Task], tmp_path: Path) -> None:
    model, task = trained
    assert _settle(model, model, task, tmp_path) == (model, False)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_training_against_rounding_recovers_what_an_outlier_costs(
    trained: tuple[nn.Module, Task], tmp_path: Path
) -> None:
    """Judged on data that neither training nor the decision saw."""
    model, task = trained
    hard = _with_an_outlier(copy.deepcopy(model))
    assert _settle(hard, model, task, tmp_path, epochs=0) == (hard, False)
    better, was_trained = _settle(hard, model, task, tmp_path, epochs=3)
    assert was_trained
    inputs = calibration_inputs(task)
    before, after = (evaluate(simulated(m, inputs), task) for m in (hard, better))
    assert after > before + 0.02
