"""Training, distillation from the original model, evaluation and batch-norm re-estimation."""

from __future__ import annotations

from sekron_edge.training._batchnorm import calibration_batches, reestimate_batch_norm
from sekron_edge.training._config import FinetuneConfig, TrainConfig
from sekron_edge.training._training import CHECKPOINT_NAME, evaluate, finetune, train

__all__ = [
    "CHECKPOINT_NAME",
    "FinetuneConfig",
    "TrainConfig",
    "calibration_batches",
    "evaluate",
    "finetune",
    "reestimate_batch_norm",
    "train",
]
