"""Architectures that benchmarks predict and measure, with random weights.

Written here because torchvision does not import beside the CPU build of torch that is pinned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class _Basic(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_convolution(inputs, outputs, 3, stride))
        self.second = nn.Sequential(*_convolution(outputs, outputs, 3))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class _Inverted(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*_convolution(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand, *_convolution(inner, inner, 3, stride, groups=inner), nn.ReLU6(), *_convolution(inner, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layers(x)
        return x + changed if self.adds else changed


class _Dense(nn.Module):
    """Norm, activation, convolution, and all that came before (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), *_convolution(inputs, 4 * growth, 1), nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], 1)


def _head(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def resnet18() -> nn.Module:
    """ResNet-18 for images of ImageNet's size."""
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Basic(inputs, outputs, stride), _Basic(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, *_head(512, 1000))


def mobilenet_v2() -> nn.Module:
    """MobileNetV2 1.0."""
    layers: list[nn.Module] = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    blocks = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expansion, outputs, count, stride in blocks:
        for index in range(count):
            layers.append(_Inverted(inputs, outputs, 1 if index else stride, expansion))
            inputs = outputs
    return nn.Sequential(*layers, *_convolution(320, 1280, 1), nn.ReLU6(), *_head(1280, 1000))


def vgg_like() -> nn.Module:
    """Plain convolutions with pooling between."""
    layers: list[Any] = []
    inputs = 3
    for outputs in (32, 32, 0, 64, 64, 0, 128, 128, 0, 256, 256, 0):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()] if outputs else [nn.MaxPool2d(2)]
        inputs = outputs or inputs
    return nn.Sequential(*layers, *_head(256, 512), nn.ReLU(), nn.Linear(512, 100))


def densenet_like() -> nn.Module:
    """Three blocks that concatenate."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, 2, 1)]
    channels = 24
    for _ in range(3):
        for _ in range(4):
            layers.append(_Dense(channels, 12))
            channels += 12
        layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]
        channels //= 2
    return nn.Sequential(*layers, *_head(channels, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "ResNet-18": (resnet18, (224, 128)),
    "MobileNetV2": (mobilenet_v2, (224, 128)),
    "VGG-like": (vgg_like, (64, 96)),
    "DenseNet-like": (densenet_like, (64, 96)),
}


def settled(model: nn.Module) -> nn.Module:
    """Give batch norms statistics as training would leave them: ones and zeros would quantize oddly."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return model.eval()
