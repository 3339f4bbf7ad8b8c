"""Supervised training and distillation, resumable to the bit, and evaluation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from sekron_edge import pytrees
from sekron_edge.data import collate, referenced, require_targets, require_task
from sekron_edge.errors import ConfigError
from sekron_edge.nn import admitted, errors_of, evaluation_mode, in_single, rebuilt_kernels
from sekron_edge.task import Samples, Task
from sekron_edge.threads import torch_threads
from sekron_edge.training._config import FinetuneConfig, TrainConfig
from sekron_edge.training._order import EpochOrder

CHECKPOINT_NAME = "last.ckpt"
_LIGHTNING_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def evaluate(model: nn.Module, task: Task, *, split: str = "heldout", batch_size: int = 256) -> float:
    """Return the task's metric of ``model`` on a split.

    Args:
        model: Evaluated in evaluation mode, on its own device, in float32; left as it was.
        task: Holds the data and the metric.
        split: ``heldout``, ``calibration`` or ``train``.
        batch_size: Samples at a time.

    Raises:
        ConfigError: If there is no such split, the task has no labels, or the model does not take its inputs.
        DataError: If the split is empty, or samples do not make a batch.
    """
    require_targets(task)
    splits = {"heldout": task.heldout, "calibration": task.calibration, "train": task.train}
    if split not in splits:
        raise ConfigError(f"split must be one of {', '.join(splits)}; got {split!r}")
    model = in_single(admitted(model))
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    metric = task.metric().to(device)
    with torch.inference_mode(), evaluation_mode(model):
        for batch in _loader(splits[split], batch_size):
            inputs, targets = pytrees.map_tensors(lambda value: value.to(device), batch)
            with errors_of(model, inputs):
                outputs = pytrees.call(model, inputs)
            metric.update(outputs, targets)
        return float(metric.compute())


def train(
    model: nn.Module,
    task: Task,
    *,
    config: TrainConfig | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Train a copy of ``model`` on the task's supervised loss and return it in evaluation mode.

    Args:
        model: The start of training; not modified.
        task: Holds the data and the loss.
        config: Settings; the defaults if None.
        checkpoints: Folder for a checkpoint after each epoch; None: no checkpoint is kept.
        resume: Go on from the checkpoint, if there is one. The result is that of an uninterrupted run, to the bit, on
            the same machine with the same number of threads.
        progress: Show a progress bar.

    Raises:
        ConfigError: If the task has no loss, the loss is no longer finite, or the checkpoint is of other settings.
    """
    require_task(task)
    if task.loss is None:
        raise ConfigError(
            f"task {task.name!r} has no loss to train on: give the model's weights, or a task with labels and a loss"
        )
    return _fit(in_single(admitted(model)), None, task, config or TrainConfig(), checkpoints, resume, progress)


def finetune(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    *,
    config: TrainConfig | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Distil ``teacher`` into a copy of ``student`` and return that in evaluation mode.

    The loss is ``alpha * distillation + (1 - alpha) * supervised``, or distillation's alone where the task has no
    supervised one. Arguments and errors are those of `train`; the default settings are those of `FinetuneConfig`.
    Neither model is modified.
    """
    require_task(task)
    student, teacher = (in_single(admitted(model)) for model in (student, teacher))
    return _fit(student, teacher, referenced(task, teacher), config or FinetuneConfig(), checkpoints, resume, progress)


def _loader(samples: Samples, batch_size: int, order: EpochOrder | None = None) -> DataLoader[Any]:
    # The loader's own generator keeps it from drawing on the global one, which augmentation uses.
    size = len(samples)  # type: ignore[arg-type]
    return DataLoader(
        samples,
        batch_size,
        sampler=order,
        collate_fn=collate,
        drop_last=order is not None and size > batch_size,
        generator=torch.Generator(),
    )


def _fit(
    student: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    config: TrainConfig,
    checkpoints: Path | None,
    resume: bool,
    progress: bool,
) -> nn.Module:
    with _quiet(), torch_threads(config.threads), torch.random.fork_rng(devices=[]):
        import lightning
        from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar

        from sekron_edge.training._lightning import Training, WholeFileIO

        order = EpochOrder(len(task.train), config.seed)  # type: ignore[arg-type]
        loader = _loader(task.train, config.batch_size, order)
        module = Training(student, teacher, task, config, order, len(loader))
        checkpoint = checkpoints / CHECKPOINT_NAME if checkpoints is not None and resume else None
        if checkpoint is not None and not checkpoint.is_file():
            checkpoint = None
        if checkpoint is not None and module.is_complete(torch.load(checkpoint, map_location="cpu", weights_only=True)):
            return _settled(module.student)
        callbacks: list[Callback] = [RichProgressBar(console_kwargs={"stderr": True})] if progress else []
        if checkpoints is not None:
            callbacks.append(
                ModelCheckpoint(
                    checkpoints,
                    Path(CHECKPOINT_NAME).stem,
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                )
            )
        trainer = lightning.Trainer(
            accelerator="auto",
            devices=1,
            precision=_LIGHTNING_PRECISION[config.precision],
            max_epochs=config.epochs,
            callbacks=callbacks,
            plugins=[WholeFileIO()],
            logger=False,
            enable_checkpointing=checkpoints is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=checkpoints,
        )
        validation = None if config.patience is None else _loader(task.calibration, 256)
        with rebuilt_kernels(module.student):
            trainer.fit(module, loader, validation, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
    return _settled(module.student)


def _settled(model: nn.Module) -> nn.Module:
    """Bring a trained model to the CPU, with its weights in the ordinary memory order."""
    for tensor in (*model.cpu().eval().parameters(), *model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide lightning's tips, notes and warnings within the block."""
    names = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers: list[Any] = [logging.getLogger(name) for name in (*names, "lightning.fabric.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning.pytorch  # noqa: F401  (sets its loggers' levels)

        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
