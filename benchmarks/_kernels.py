"""Convolution kernels to decompose: of a network trained here, and random ones of the same size."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sekron_edge import files
from sekron_edge.data import classification, digits
from sekron_edge.training import TrainConfig, train

_CONFIG = TrainConfig(epochs=30, learning_rate=0.05, weight_decay=5e-3, threads=2)


def _network(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    inputs = 1
    for position, width in enumerate(widths):
        # What widens is a 1x1 convolution, so that every 3x3 kernel is (width, width, 3, 3).
        layers += [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        stride = 2 if position in (1, 2) else 1
        layers += [nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def trained_kernels(widths: tuple[int, ...]) -> dict[int, Tensor]:
    """Return the 3x3 kernels ``(width, width, 3, 3)`` of a network trained on digits, by width; cached."""
    stored = files.cache_folder() / f"kernels-{files.fingerprint(widths, _CONFIG)}.safetensors"
    if not stored.is_file():
        torch.manual_seed(0)
        model = train(_network(widths), classification(digits(), augment_shift=1), config=_CONFIG, progress=False)
        kernels = [m.weight.detach() for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        stored.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(Path(stored)) as temporary:
            save_file({str(len(kernel)): kernel.contiguous() for kernel in kernels}, temporary)
    return {int(width): kernel for width, kernel in load_file(stored).items()}


def random_kernels(widths: tuple[int, ...]) -> dict[int, Tensor]:
    """Return normally distributed kernels of the same sizes."""
    generator = torch.Generator().manual_seed(0)
    return {width: torch.randn(width, width, 3, 3, generator=generator) for width in widths}
