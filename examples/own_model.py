"""Your own model, your own data, in Python: everything that `sekron-edge run` does, without a config file.

Run it with `python examples/own_model.py [FOLDER]`. It prints what a bundle for this machine holds; the delivered
model has at most half of the dense one's MACs.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import sekron_edge as se
from sekron_edge.bundle import before_and_after


def data() -> tuple[TensorDataset, TensorDataset]:
    """Return training and held-out samples: any dataset of `(input, target)` will do."""
    images, targets = load_digits(return_X_y=True)
    inputs = F.interpolate(torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, scale_factor=2)
    labels = torch.tensor(targets)
    return TensorDataset(inputs[:1500], labels[:1500]), TensorDataset(inputs[1500:], labels[1500:])


def network() -> nn.Module:
    """Make any network of convolutions and linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 48, 3, padding=1, padding_mode="replicate"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(48 * 16, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def trained(model: nn.Module, samples: TensorDataset) -> nn.Module:
    """Train as you do."""
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    inputs, targets = samples.tensors
    for _ in range(15):
        for chosen in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
    return model.eval()


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Say how far the small model's outputs are from the original's."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean")


def main(out: str) -> None:
    """Train, compress, and show what came of it."""
    torch.manual_seed(0)
    train, heldout = data()
    model = trained(network(), train)
    task = se.Task(
        name="digits",
        train=train,
        calibration=TensorDataset(*(values[:256] for values in train.tensors)),
        heldout=heldout,
        loss=F.cross_entropy,
        distillation=divergence,
        metric=lambda: MulticlassAccuracy(10, average="micro"),
        metric_name="accuracy",
        labels=tuple("0123456789"),
    )
    done = se.compress(
        model,
        (train[0][0][None],),
        profile="host",
        task=task,
        out=out,
        budget=se.Budget(macs="0.5x", accuracy_drop=0.03),
        formats=["litert"],
        finetuning=se.FinetuneConfig(epochs=10),
    )
    for row in before_and_after(done.manifest):
        print("{:<50}{:>16}{:>16}  {}".format(*row))
    print(f"{done.bundle}: every budget kept: {done.manifest.kept}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "dist/own-model")
