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

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, kernel: int = 3) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*_convolution(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            *_convolution(inner, inner, kernel, stride, groups=inner),
            nn.ReLU6(),
            *_convolution(inner, outputs, 1),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.layers(x)
        return x + changed if self.adds else changed


class _Bottleneck(nn.Module):
    """A 3x3 convolution between two pointwise ones, and a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.layers = nn.Sequential(
            *_convolution(inputs, inner, 1), nn.ReLU(), *_convolution(inner, inner, 3, stride), nn.ReLU(),
            *_convolution(inner, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class _Split(nn.Module):
    """Half of the channels goes through blocks, and all that comes between joins again (YOLOv8's C2f)."""

    def __init__(self, inputs: int, outputs: int, blocks: int, adds: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.first = nn.Sequential(*_convolution(inputs, outputs, 1), nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(*_convolution(half, half, 3), nn.SiLU(), *_convolution(half, half, 3), nn.SiLU())
            for _ in range(blocks)
        )
        self.last = nn.Sequential(*_convolution((2 + blocks) * half, outputs, 1), nn.SiLU())
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            changed = block(parts[-1])
            parts.append(parts[-1] + changed if self.adds else changed)
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class _Pyramid(nn.Module):
    """Three poolings, one after another, side by side (YOLOv8's SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_convolution(channels, channels // 2, 1), nn.SiLU())
        self.last = nn.Sequential(*_convolution(2 * channels, channels, 1), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class _Detector(nn.Module):
    """Layers and sizes of YOLOv8n (Jocher et al. 2023), with its raw heads: boxes and scores of 80 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(
            *_convolution(3, 16, 3, 2), nn.SiLU(), *_convolution(16, 32, 3, 2), nn.SiLU(), _Split(32, 32, 1),
            *_convolution(32, 64, 3, 2), nn.SiLU(), _Split(64, 64, 2),
        )  # fmt: skip
        self.middle = nn.Sequential(*_convolution(64, 128, 3, 2), nn.SiLU(), _Split(128, 128, 2))
        self.late = nn.Sequential(*_convolution(128, 256, 3, 2), nn.SiLU(), _Split(256, 256, 1), _Pyramid(256))
        self.up_to_middle, self.up_to_early = _Split(384, 128, 1, False), _Split(192, 64, 1, False)
        self.shrinks = nn.ModuleList(nn.Sequential(*_convolution(c, c, 3, 2), nn.SiLU()) for c in (64, 128))
        self.down_to_middle, self.down_to_late = _Split(192, 128, 1, False), _Split(384, 256, 1, False)
        self.boxes = nn.ModuleList(self._heads(inputs, 64, 64) for inputs in (64, 128, 256))
        self.scores = nn.ModuleList(self._heads(inputs, 80, 80) for inputs in (64, 128, 256))

    @staticmethod
    def _heads(inputs: int, inner: int, outputs: int) -> nn.Module:
        between = [*_convolution(inputs, inner, 3), nn.SiLU(), *_convolution(inner, inner, 3), nn.SiLU()]
        return nn.Sequential(*between, nn.Conv2d(inner, outputs, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.early(x)
        middle = self.middle(early)
        late = self.late(middle)
        seen = self.up_to_middle(torch.cat([F.interpolate(late, scale_factor=2.0), middle], 1))
        large = self.up_to_early(torch.cat([F.interpolate(seen, scale_factor=2.0), early], 1))
        medium = self.down_to_middle(torch.cat([self.shrinks[0](large), seen], 1))
        small = self.down_to_late(torch.cat([self.shrinks[1](medium), late], 1))
        scales = (large, medium, small)
        return {
            name: torch.cat([head(scale).flatten(2) for head, scale in zip(heads, scales, strict=True)], 2)
            for name, heads in (("boxes", self.boxes), ("scores", self.scores))
        }


class _UNet(nn.Module):
    """Down, up, and what was there before (Ronneberger et al. 2015), with batch norms."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(map(self._twice, [3, *sizes[:-1]], sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, 2) for size in sizes[-2::-1])
        self.joined = nn.ModuleList(self._twice(2 * size, size) for size in sizes[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _twice(inputs: int, outputs: int) -> nn.Module:
        first = [*_convolution(inputs, outputs, 3), nn.ReLU()]
        return nn.Sequential(*first, *_convolution(outputs, outputs, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        kept = [self.down[0](x)]
        for layers in list(self.down)[1:]:
            kept.append(layers(F.max_pool2d(kept[-1], 2)))
        x = kept.pop()
        for up, joined in zip(self.up, self.joined, strict=True):
            x = joined(torch.cat([up(x), kept.pop()], 1))
        scores: Tensor = self.head(x)
        return scores


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


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-and-excite)."""
    layers: list[nn.Module] = [*_convolution(3, 32, 3, 2), nn.ReLU6()]
    inputs = 32
    blocks = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    )  # fmt: skip
    for expansion, outputs, count, stride, kernel in blocks:
        for index in range(count):
            layers.append(_Inverted(inputs, outputs, 1 if index else stride, expansion, kernel))
            inputs = outputs
    return nn.Sequential(*layers, *_convolution(320, 1280, 1), nn.ReLU6(), *_head(1280, 1000))


def resnet50() -> nn.Module:
    """ResNet-50, with its strides in the 3x3 convolutions."""
    layers: list[nn.Module] = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for inner, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            layers.append(_Bottleneck(inputs, inner, 1 if index else stride))
            inputs = 4 * inner
    return nn.Sequential(*layers, *_head(2048, 1000))


def unet() -> nn.Module:
    """U-Net of four levels, 32 channels at the first, for four classes."""
    return _UNet(32, 4)


def detector() -> nn.Module:
    """A detector as YOLOv8n: two outputs, boxes and scores."""
    return _Detector()


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
