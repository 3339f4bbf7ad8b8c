"""A task of one's own: by how many degrees was a digit turned? The job is turned_digits.toml."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from sekron_edge.data import digits, regression


class TurnedDigits(Dataset[tuple[Tensor, Tensor]]):
    """Digits ``(1, 16, 16)`` in [0, 1], each turned by its own angle in degrees, when it is read.

    Args:
        images: uint8 ``(N, 1, 8, 8)``.
        most: Largest angle, to either side.
        seed: Draws the angles.
    """

    def __init__(self, images: Tensor, most: float, seed: int) -> None:
        self._images = images
        self._angles = (2 * torch.rand(len(images), generator=torch.Generator().manual_seed(seed)) - 1) * most

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a digit and its angle, ``(1,)``."""
        angle = float(self._angles[index]) * math.pi / 180
        turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
        grid = F.affine_grid(turn[None], [1, 1, 16, 16], align_corners=False)
        image = self._images[index][None].float() / 255
        return F.grid_sample(image, grid, align_corners=False)[0], self._angles[index][None]


def task(seed: int, most: float = 45.0) -> se.Task:
    """Make the task: `[data]` may give `most`, and the job gives its seed."""
    data = digits(seed=seed)
    assert isinstance(data.train_images, Tensor)
    assert isinstance(data.heldout_images, Tensor)
    train = TurnedDigits(data.train_images, most, seed)
    calibration = TurnedDigits(data.train_images[:256], most, seed)
    heldout = TurnedDigits(data.heldout_images, most, seed + 1)
    return regression(train, calibration, heldout, scale=(most / math.sqrt(3),), unit="degrees")


def network() -> nn.Module:
    """Make a network from ``(B, 1, 16, 16)`` to ``(B, 1)`` degrees."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 1), Degrees(),
    )  # fmt: skip


class Degrees(nn.Module):
    """Its input times 26, the standard deviation of angles up to 45: so the last layer learns values near 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Return degrees."""
        return 26 * x
