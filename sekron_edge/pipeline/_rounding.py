"""Distillation against rounding, where a finished model loses too much in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from sekron_edge.nn import FakeQuantized
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._noise import LEAST_SNR_DB
from sekron_edge.pipeline._progress import Progress
from sekron_edge.quantization import simulated, verifiable_snr_db
from sekron_edge.training import evaluate, finetune


def settle_rounding(
    small: nn.Module, job: Job, *, checkpoints: Path, progress: Progress, keep_float: Sequence[str] = ()
) -> tuple[nn.Module, bool]:
    """Return the model to quantize, and whether it was trained against rounding.

    Calibration data decides: if rounding costs more than the tolerance, or leaves more noise than files may have, the
    model is distilled for some more epochs with rounded weights and activations, and the result is taken if it is
    better in int8, or no longer too noisy and no worse than the tolerance. What the artifacts keep in
    float is not rounded here either.
    """
    task, config, calibration = job.task, job.quantization, job.calibration_inputs

    def score(candidate: nn.Module) -> float:
        return evaluate(candidate, task, split="calibration")

    def ratio(model: nn.Module) -> float:
        return verifiable_snr_db(model, calibration, keep_float)

    rounded = simulated(small, calibration, keep_float)
    in_float, in_int8 = score(small), score(rounded)
    before = ratio(small)
    progress.say(
        f"int8, simulated on calibration data: {task.metric_name} {in_int8:.4g}, in float {in_float:.4g}; "
        f"signal-to-noise {before:.1f} dB"
    )
    reasons = []
    if task.lost(in_int8, in_float) > config.tolerance:
        reasons.append(f"it loses more than {config.tolerance:g}")
    if before < LEAST_SNR_DB:
        reasons.append(f"files need {LEAST_SNR_DB:g} dB")
    if not reasons or config.epochs == 0:
        return small, False
    progress.say(
        f"{' and '.join(reasons)}: distilling against rounding for {config.epochs} "
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
    cured = before < LEAST_SNR_DB <= ratio(trained.model) and task.lost(after, in_int8) <= config.tolerance
    if task.lost(after, in_int8) >= 0 and not cured:
        progress.say(f"which gained nothing ({after:.4g}): the model stays as it was")
        return small, False
    progress.say(f"which brought {task.metric_name} in int8 to {after:.4g}")
    return trained.model, True
