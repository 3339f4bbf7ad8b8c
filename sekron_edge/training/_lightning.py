"""The module that lightning runs, for training and distillation; checkpoints as whole files."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.data import batch_of
from sekron_edge.errors import ConfigError
from sekron_edge.files import whole_file
from sekron_edge.task import Task
from sekron_edge.training._config import TrainConfig
from sekron_edge.training._order import EpochOrder

_STATE = "sekron_edge"


class WholeFileIO(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, on the same file system."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save beside ``path``, then rename."""
        del storage_options
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


class Training(LightningModule):
    """Trains a copy of ``student`` on the task, with a teacher's outputs if there is one."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        task: Task,
        config: TrainConfig,
        order: EpochOrder,
        steps: int,
    ) -> None:
        super().__init__()
        self.student = deepcopy(student).train()
        for parameter in self.student.parameters():
            parameter.requires_grad_(True)
        self._channels_last = _takes_channels_last(student, task)
        if self._channels_last:
            self.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # In a list, so that the teacher is neither trained nor saved.
        self._teacher = [] if teacher is None else [deepcopy(teacher).eval()]
        self._task = task
        self._config = config
        self._order = order
        self._steps = steps
        self._metric: Any = None
        self._best = -float("inf")
        self._stale = 0

    def configure_optimizers(self) -> Any:
        """Make the optimizer and a one-cycle learning rate that changes every step."""
        config = self._config
        parameters, rate, decay = self.student.parameters(), config.learning_rate, config.weight_decay
        optimizer: torch.optim.Optimizer
        if config.optimizer == "adam":
            optimizer = torch.optim.AdamW(parameters, rate, weight_decay=decay)
        else:
            optimizer = torch.optim.SGD(parameters, rate, momentum=config.momentum, weight_decay=decay, nesterov=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            config.learning_rate,
            total_steps=max(2, self._steps * config.epochs),
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Bring the teacher to the student's device."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Make order and augmentation a function of the seed and the epoch."""
        self.student.train()
        self._order.epoch = self.current_epoch
        torch.manual_seed(self._config.seed * 1000 + self.current_epoch)

    def training_step(self, batch: tuple[Any, Any], batch_index: int) -> Tensor:
        """Return the loss of a batch."""
        inputs, targets = batch
        if self._channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs = _in_single(pytrees.call(self.student, inputs))
        loss = self._loss(inputs, outputs, targets)
        if not torch.isfinite(loss):
            raise ConfigError(
                f"the loss must stay finite; it became {float(loss)} in epoch {self.current_epoch}, step "
                f"{batch_index}, at learning rate {self.trainer.optimizers[0].param_groups[0]['lr']:.3g}; "
                f"set a learning_rate below {self._config.learning_rate:g}"
            )
        self.log("loss", loss.detach(), prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def _loss(self, inputs: pytrees.Inputs, outputs: pytrees.Outputs, targets: Any) -> Tensor:
        supervised = None if self._task.loss is None else self._task.loss(outputs, targets)
        if not self._teacher:
            assert supervised is not None
            return supervised
        (teacher,) = self._teacher
        with torch.no_grad():
            reference = _in_single(pytrees.call(teacher, inputs))
        distilled = self._task.distillation(outputs, reference)
        alpha = self._config.alpha
        return distilled if supervised is None else alpha * distilled + (1 - alpha) * supervised

    def on_validation_epoch_start(self) -> None:
        """Start a new metric."""
        self._metric = self._task.metric().to(self.device)

    def validation_step(self, batch: tuple[Any, Any], batch_index: int) -> None:
        """Count a batch of the calibration data."""
        del batch_index
        self._metric.update(_in_single(pytrees.call(self.student, batch[0])), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Stop if the metric has not improved for long enough."""
        value = float(self._metric.compute())
        self.log(self._task.metric_name, value, prog_bar=True)
        gained = value if self._task.higher_is_better else -value
        self._stale = 0 if gained > self._best else self._stale + 1
        self._best = max(self._best, gained)
        if self._config.patience is not None and self._stale >= self._config.patience:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings and the state of early stopping."""
        checkpoint[_STATE] = {
            "config": self._settings(),
            "epochs": self.current_epoch + 1,
            "best": self._best,
            "stale": self._stale,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state of early stopping."""
        self._best, self._stale = checkpoint[_STATE]["best"], checkpoint[_STATE]["stale"]

    def is_complete(self, checkpoint: dict[str, Any]) -> bool:
        """Return whether a checkpoint is of a finished run, and load its weights if it is.

        Raises:
            ConfigError: If the checkpoint was made with other settings.
        """
        state = checkpoint.get(_STATE, {})
        if state.get("config") != self._settings():
            raise ConfigError(
                f"a checkpoint to resume must have these settings: {self._settings()}; its own are "
                f"{state.get('config')}; use the same, or start again in another folder"
            )
        patience = self._config.patience
        done: bool = state["epochs"] >= self._config.epochs
        if done or (patience is not None and state["stale"] >= patience):
            self.load_state_dict(checkpoint["state_dict"])
            return True
        return False

    def _settings(self) -> dict[str, Any]:
        """Return everything but the thread count, and whether there is a teacher."""
        return {
            **self._config.model_dump(exclude={"threads"}),
            "teacher": bool(self._teacher),
            "steps": self._steps,
        }


def _in_single(outputs: pytrees.Outputs) -> pytrees.Outputs:
    """Return outputs of mixed precision in float32, because losses are sums of small differences."""
    return pytrees.map_tensors(lambda out: out.float() if out.dtype == torch.bfloat16 else out, outputs)


def _takes_channels_last(model: nn.Module, task: Task) -> bool:
    """Return whether images may be laid out channels-last, which trains faster but breaks ``view``."""
    inputs, _ = batch_of(task.calibration, [0])
    if not isinstance(inputs, Tensor) or inputs.ndim != 4:
        return False
    copy: nn.Module = deepcopy(model).cpu().eval()
    copy.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            copy(inputs.expand(2, -1, -1, -1).contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True
