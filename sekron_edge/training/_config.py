"""Settings of training and of distillation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sekron_edge.settings import Settings


class TrainConfig(Settings):
    """Settings of training and of distillation, with a one-cycle learning rate.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Samples per step.
        optimizer: ``sgd`` with Nesterov momentum, or ``adam`` (AdamW).
        learning_rate: The peak of the cycle.
        weight_decay: L2 penalty.
        momentum: Nesterov momentum.
        alpha: Share of the distillation loss; the rest is the supervised loss. Unused without a teacher.
        seed: Decides the order of the data and its augmentation, epoch by epoch.
        patience: Stop after this many epochs without a better metric on the calibration data; None: never.
        threads: Threads that torch may use; None leaves its setting.
        precision: ``bf16`` is mixed precision: convolutions and linear layers in bfloat16, weights and losses in
            float32. It is faster where there are instructions for bfloat16, and slower where there are none.
    """

    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=128, ge=2)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.05, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    momentum: float = Field(default=0.9, gt=0, lt=1)
    alpha: float = Field(default=0.7, ge=0, le=1)
    seed: int = Field(default=0, ge=0)
    patience: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"


class FinetuneConfig(TrainConfig):
    """The same settings, with the defaults of distillation.

    AdamW is the optimizer, because factors of one layer need steps of very different size: from weights that were
    decomposed well, SGD at a rate that suits Tucker-2 destroys a network with CP in it.
    """

    epochs: int = Field(default=2, ge=1)
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
