"""A small EDSR (Lim et al. 2017): residual blocks without normalisation, then a pixel shuffle."""

from __future__ import annotations

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions around a ReLU, added to what came in.

    Args:
        channels: In and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        out: Tensor = x + self.conv2(self.relu(self.conv1(x)))
        return out


class EDSR(nn.Module):
    """Enlarges an image.

    Args:
        channels: Of the residual blocks.
        blocks: How many.
        scale: How many times larger.
    """

    def __init__(self, channels: int = 32, blocks: int = 4, scale: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` in [0, 1] to ``(B, 3, scale H, scale W)``."""
        x = self.head(x)
        image: Tensor = self.shuffle(self.tail(x + self.body(self.blocks(x))))
        return image


def edsr() -> EDSR:
    """Make the network."""
    return EDSR()
