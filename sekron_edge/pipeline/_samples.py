"""Samples of a task as one batch, for calibration or held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sekron_edge import pytrees
from sekron_edge.data import batch_of, calibration_batch, training_batch
from sekron_edge.errors import DataError
from sekron_edge.files import fingerprint
from sekron_edge.task import Task

_CALIBRATION_SAMPLES = 256


def calibration_inputs(task: Task, samples: int = _CALIBRATION_SAMPLES) -> pytrees.Inputs:
    """Return up to ``samples`` calibration inputs as one batch."""
    count = min(samples, len(task.calibration))  # type: ignore[arg-type]
    return calibration_batch(task, range(count))


def training_inputs(task: Task, samples: int, seed: int) -> pytrees.Inputs:
    """Return the inputs of ``samples`` training samples as one batch, drawn and augmented by a seed, without labels."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # augmentation draws on the global generator
        return training_batch(task, order[:samples].tolist())


def heldout_samples(task: Task, samples: int) -> tuple[pytrees.Inputs, Any]:
    """Return up to ``samples`` held-out samples of a task with targets, spread over all, as one batch of both."""
    total = len(task.heldout)  # type: ignore[arg-type]
    chosen = range(0, total, max(1, total // samples))[:samples]
    inputs, targets = batch_of(task.heldout, chosen)
    return inputs, targets


def example_inputs(task: Task) -> pytrees.Inputs:
    """Return the inputs of one calibration sample, as a batch of 1, as the model's arguments."""
    batch = calibration_batch(task, range(1))
    if isinstance(batch, Mapping):
        return dict(batch)
    return tuple(batch) if isinstance(batch, list) or type(batch) is tuple else (batch,)


_REMEDY = (
    "What is the same for all samples is sekron_edge.Shared(...) in each: it has no batch axis, and a number in it "
    "stays a number"
)


def require_alike(task: Task, example: pytrees.Inputs) -> None:
    """Refuse a task whose samples are not of the example inputs' shapes and types.

    Raises:
        DataError: If they differ, or if their batch has not the first axis of the first tensor.
    """
    count = min(2, len(task.calibration))  # type: ignore[arg-type]
    batch = calibration_batch(task, range(count))
    given, read = (pytrees.named_tensors(inputs, "input") for inputs in (example, batch))
    alike = len(given) == len(read) and all(
        one.shape[1:] == other.shape[1:] and one.is_floating_point() == other.is_floating_point()
        for one, other in zip(given.values(), read.values(), strict=True)
    )
    if not alike:
        raise DataError(
            f"a task's samples must be like the example inputs, {_described(given)}; a batch of {count} is "
            f"{_described(read)}. {_REMEDY}"
        )
    if pytrees.batch_size(batch) != count:
        raise DataError(
            f"the first tensor of a task's inputs must have a batch axis; a batch of {count} is {_described(read)}. "
            f"{_REMEDY}"
        )


def _described(named: Mapping[str, Tensor]) -> str:
    said = (f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}" for name, value in named.items())
    return ", ".join(said) or "without tensors"


def data_fingerprint(inputs: pytrees.Inputs, task: Task) -> str:
    """Hash a task's calibration inputs: they change with the data, their normalisation and their seed."""
    return fingerprint(*(value.numpy().tobytes() for value in pytrees.tensors(inputs)), len(task.train))  # type: ignore[arg-type]
