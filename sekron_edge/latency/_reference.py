"""MobileNetV1 1.0 at 224x224, as primitives: the network whose latency is published for most devices."""

from __future__ import annotations

from sekron_edge.primitives import Conv, Linear, Primitive

# Howard et al. 2017, table 1: output channels and stride of each depthwise-separable block.
_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1),
)  # fmt: skip


def reference_primitives() -> tuple[Primitive, ...]:
    """Return MobileNetV1's convolutions and classifier; 569 million MACs."""
    size, channels = 112, 32
    primitives: list[Primitive] = [Conv((1, 3, 224, 224), 32, (3, 3), (2, 2), (1, 1), 1, (112, 112))]
    for out, stride in _BLOCKS:
        shape = (1, channels, size, size)
        size //= stride
        primitives.append(Conv(shape, channels, (3, 3), (stride, stride), (1, 1), channels, (size, size)))
        primitives.append(Conv((1, channels, size, size), out, (1, 1), (1, 1), (1, 1), 1, (size, size)))
        channels = out
    return (*primitives, Linear(1, channels, 1000))
