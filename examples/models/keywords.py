"""A small depthwise-separable CNN for keywords (after Zhang et al. 2017, arXiv 1711.07128)."""

from __future__ import annotations

from torch import nn


def keyword_net(labels: int = 10, channels: int = 48, blocks: int = 3) -> nn.Sequential:
    """Make a network from log-mel features ``(B, 1, mels, time)`` to logits.

    Args:
        labels: Number of keywords.
        channels: Of all convolutions.
        blocks: Number of depthwise-separable blocks.
    """
    stem = nn.Conv2d(1, channels, (10, 4), stride=2, padding=(4, 1), bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(channels), nn.ReLU()]
    for _ in range(blocks):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, labels))
