"""A small CNN for scikit-learn's digits."""

from __future__ import annotations

from torch import nn


def digits_cnn() -> nn.Sequential:
    """Make a network from ``(B, 1, 8, 8)`` to ``(B, 10)`` logits."""
    return nn.Sequential(
        *_convolution(1, 32, 1),
        *_convolution(32, 64, 1),
        *_convolution(64, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()
