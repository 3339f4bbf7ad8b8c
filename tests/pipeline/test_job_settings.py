"""A job collates its calibration inputs once, and its settings say what decides its result."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchmetrics import MeanSquaredError

from sekron_edge.budget import Budget
from sekron_edge.devices import load_profile
from sekron_edge.pipeline import Job, Target
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig


class Counted(Dataset[tuple[Tensor, Tensor]]):
    """Ones and zeros; counts how many samples were read."""

    def __init__(self, value: float = 1.0) -> None:
        self.value, self.read = value, 0

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.read += 1
        return torch.full((1, 4, 4), self.value), torch.zeros(1)


def job(samples: Counted) -> Job:
    task = Task(
        name="any", train=samples, calibration=samples, heldout=samples, loss=F.mse_loss, distillation=F.mse_loss,
        metric=MeanSquaredError, metric_name="error",
    )  # fmt: skip
    torch.manual_seed(0)
    return Job(nn.Conv2d(1, 1, 3), (torch.ones(1, 1, 4, 4),), task, Target.choose(load_profile("host")))


def test_calibration_inputs_are_collated_once() -> None:
    samples = Counted()
    asked = job(samples)
    asked.settings()
    assert asked.calibration_inputs is asked.calibration_inputs
    assert asked.calibration_inputs.shape == (256, 1, 4, 4)
    assert samples.read == 256


@pytest.mark.parametrize(
    ("changed", "setting"),
    [
        ({"model": nn.Conv2d(1, 1, 3)}, "model"),
        ({"task": job(Counted(0.0)).task}, "data"),
        ({"budget": Budget(macs="0.5x")}, "budget"),
        ({"target": Target.choose(load_profile("host"), threads=3)}, "threads"),
        ({"finetuning": FinetuneConfig(epochs=7)}, "finetune section"),
        ({"quantization": QuantizationConfig(epochs=7)}, "quantization section"),
        ({"seed": 1}, "seed"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_decides_the_result_is_a_setting(changed: dict[str, object], setting: str) -> None:
    before, after = job(Counted()).settings(), replace(job(Counted()), **changed).settings()  # type: ignore[arg-type]
    assert {name for name in before if before[name] != after[name]} == {setting}


def test_what_only_names_the_result_is_none() -> None:
    assert replace(job(Counted()), name="other").settings() == job(Counted()).settings()
