"""Distillation against rounding, where a finished model loses too much in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from sekron_edge.nn import FakeQuantized
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._progress import Progress
from sekron_edge.quantization import simulated
from sekron_edge.training import evaluate, finetune


def settle_rounding(
    small: nn.Module, job: Job, *, checkpoints: Path, progress: Progress, keep_float: Sequence[str] = ()
) -> tuple[nn.Module, bool]:
    """Return the model to quantize, and whether it was trained against rounding.

    Calibration data decides: if rounding costs more than the tolerance, the model is distilled for some more epochs
    with rounded weights and activations, and the result is taken if it is better in int8. What the artifacts keep in
    float is not rounded here either.
    """
    task, config, calibration = job.task, job.quantization, job.calibration_inputs

    def score(candidate: nn.Module) -> float:
        return evaluate(candidate, task, split="calibration")

    rounded = simulated(small, calibration, keep_float)
    in_float, in_int8 = score(small), score(rounded)
    progress.say(f"int8, simulated on calibration data: {task.metric_name} {in_int8:.4g}, in float {in_float:.4g}")
    if task.lost(in_int8, in_float) <= config.tolerance or config.epochs == 0:
        return small, False
    progress.say(
        f"that is more than {config.tolerance:g}: distilling against rounding for {config.epochs} "
        f"epoch{'s' if config.epochs > 1 else ''}"
    )
    # In float32: bfloat16 would round the values of the simulated integers once more.
    settings = job.finetuning.model_copy(
        update={
            "epochs": config.epochs,
            "learning_rate": config.learning_rate * job.finetuning.learning_rate,
            "precision": "fp32",
        }
    )
    trained = finetune(
        rounded, job.model, task,
        config=settings, checkpoints=checkpoints, resume=True, progress=progress.interactive,
    )  # fmt: skip
    assert isinstance(trained, FakeQuantized)
    after = score(simulated(trained.model, calibration, keep_float))
    if task.lost(after, in_int8) >= 0:
        progress.say(f"which gained nothing ({after:.4g}): the model stays as it was")
        return small, False
    progress.say(f"which brought {task.metric_name} in int8 to {after:.4g}")
    return trained.model, True
