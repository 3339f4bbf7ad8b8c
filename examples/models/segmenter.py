"""A small encoder and decoder that says of each pixel which class it is (after U-Net, arXiv 1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Segmenter(nn.Module):
    """From images ``(B, 3, H, W)``, sides a multiple of 4, to ``{"out": (B, classes, H, W)}``.

    Args:
        classes: Number of classes.
        width: Channels of the first level.
    """

    def __init__(self, classes: int = 2, width: int = 16) -> None:
        super().__init__()
        self.outer = _block(3, width)
        self.middle = _block(width, 2 * width)
        self.inner = _block(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up_inner = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up_middle = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.after_middle = _block(4 * width, 2 * width)
        self.head = nn.Sequential(_block(2 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits, named as torchvision's segmentation networks name them."""
        outer = self.outer(x)
        middle = self.middle(self.pool(outer))
        y = self.after_middle(torch.cat([self.up_inner(self.inner(self.pool(middle))), middle], 1))
        return {"out": self.head(torch.cat([self.up_middle(y), outer], 1))}


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
