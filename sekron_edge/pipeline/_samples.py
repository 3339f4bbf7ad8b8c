"""Samples of a task as one batch, for calibration or held out."""

from __future__ import annotations

from torch import Tensor

from sekron_edge.data import collate
from sekron_edge.files import fingerprint
from sekron_edge.task import Task

_CALIBRATION_SAMPLES = 256


def calibration_inputs(task: Task, samples: int = _CALIBRATION_SAMPLES) -> Tensor:
    """Return up to ``samples`` calibration inputs as one batch."""
    count = min(samples, len(task.calibration))  # type: ignore[arg-type]
    inputs, _ = collate([task.calibration[index] for index in range(count)])
    return inputs


def heldout_samples(task: Task, samples: int) -> tuple[Tensor, Tensor]:
    """Return up to ``samples`` held-out samples, spread over all of them, as one batch of inputs and targets."""
    total = len(task.heldout)  # type: ignore[arg-type]
    chosen = range(0, total, max(1, total // samples))[:samples]
    return collate([task.heldout[index] for index in chosen])


def example_inputs(task: Task) -> tuple[Tensor, ...]:
    """Return one calibration input, as a batch of 1."""
    return (task.calibration[0][0].unsqueeze(0),)


def data_fingerprint(inputs: Tensor, task: Task) -> str:
    """Hash a task's calibration inputs: they change with the data, their normalisation and their seed."""
    return fingerprint(inputs.numpy().tobytes(), len(task.train))  # type: ignore[arg-type]
