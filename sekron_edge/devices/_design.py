"""Which primitives calibration times: shapes as they occur in networks for small devices, dense and compressed."""

from __future__ import annotations

from random import Random

from sekron_edge.primitives import Conv, Linear, Permute, Primitive

_SHARES = {
    "conv": 0.24, "pointwise": 0.22, "depthwise": 0.11, "large depthwise": 0.03, "grouped": 0.13, "linear": 0.11,
    "permute": 0.16,
}  # fmt: skip
_SIZES = (2, 4, 7, 8, 14, 16, 28, 32, 56, 112)
_CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)
_FEATURES = (*_CHANNELS[4:], 10, 1000, 1024)
_KERNELS = ((3, 3), (3, 3), (3, 3), (1, 3), (3, 1), (5, 5), (7, 7))
_DEPTHWISE_KERNELS = ((3, 3), (3, 3), (1, 3), (3, 1), (5, 5))
_ORDERS = ((0, 2, 1, 3, 4), (0, 3, 1, 2, 4), (0, 2, 3, 1, 4))
_MOST_MACS = 150_000_000
_MOST_VALUES = 2_000_000


def calibration_primitives(count: int = 1000, seed: int = 0) -> list[Primitive]:
    """Draw about ``count`` different primitives of all kinds."""
    random = Random(seed)  # noqa: S311
    found: list[Primitive] = []
    for name, share in _SHARES.items():
        drawn: dict[Primitive, None] = {}
        while len(drawn) < round(count * share):
            primitive = _draw(name, random)
            if primitive.macs <= _MOST_MACS and primitive.in_elements + primitive.out_elements <= _MOST_VALUES:
                drawn[primitive] = None
        found += drawn
    return found


def _draw(name: str, random: Random) -> Primitive:
    if name == "linear":
        rows = random.choice((1, 1, 1, 4, 16, 64))
        return Linear(rows, random.choice(_FEATURES), random.choice(_FEATURES))
    size, stride = random.choice(_SIZES), random.choice((1, 1, 1, 2))
    if name == "permute":
        axes = (random.choice((2, 4, 8)), random.choice((2, 4, 8, 16)), random.choice((1, 2, 4)))
        return Permute((1, *axes, size * size), random.choice(_ORDERS))
    channels, out, batch, groups = random.choice(_CHANNELS), random.choice(_CHANNELS), 1, 1
    if name in ("depthwise", "large depthwise"):
        channels = out = groups = max(channels, 4)
        kernel = (7, 7) if name == "large depthwise" else random.choice(_DEPTHWISE_KERNELS)
    elif name == "grouped":
        groups, kernel = random.choice((2, 4, 8, 16)), random.choice(((1, 1), (3, 3), (1, 3)))
        channels, out = groups * random.choice((2, 4, 8, 16)), groups * random.choice((2, 4, 8, 16))
    else:
        kernel = (1, 1) if name == "pointwise" else random.choice(_KERNELS)
        batch = random.choice((1, 1, 1, 1, 4, 16))  # channels that are folded
    spatial = (-(-size // stride),) * 2
    return Conv((batch, channels, size, size), out, kernel, (stride, stride), (1, 1), groups, spatial)
