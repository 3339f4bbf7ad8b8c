"""DnCNN (Zhang et al. 2017, arXiv 1608.03981): gives the noise in a grey image."""

from __future__ import annotations

from torch import Tensor, nn


class DnCNN(nn.Module):
    """From a noisy image ``(B, 1, H, W)`` in [0, 1] to its noise, of the same shape.

    Args:
        layers: Number of convolutions.
        channels: Between them.
    """

    def __init__(self, layers: int = 17, channels: int = 64) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.ReLU()]
        for _ in range(layers - 2):
            convolution = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            parts += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.dncnn = nn.Sequential(*parts, nn.Conv2d(channels, 1, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return the noise."""
        noise: Tensor = self.dncnn(x)
        return noise
