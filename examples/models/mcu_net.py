"""A small image classifier as microcontrollers run it: an inverted bottleneck as in MobileNetV2, then convolutions."""

from __future__ import annotations

from torch import Tensor, nn


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.layers = nn.Sequential(
            *_convolution(inputs, inner, 1), nn.ReLU(),
            *_convolution(inner, inner, 3, stride, groups=inner), nn.ReLU(),
            *_convolution(inner, outputs, 1),
        )  # fmt: skip
        self.adds = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        changed: Tensor = self.layers(x)
        return x + changed if self.adds else changed


def mcu_net() -> nn.Module:
    """Return the network for 28x28 images in ten classes; its first block is what memory is needed for."""
    return nn.Sequential(
        *_convolution(1, 16, 3), nn.ReLU(),
        Bottleneck(16, 24, 6, 2),
        *_convolution(24, 48, 3, 2), nn.ReLU(),
        *_convolution(48, 64, 3), nn.ReLU(),
        *_convolution(64, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
