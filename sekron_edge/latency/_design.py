"""The primitives that calibration times: shapes of networks for small devices, dense and compressed."""

from __future__ import annotations

from random import Random

from sekron_edge.primitives import Conv, Copy, Elementwise, Linear, Permute, Pool, Primitive, Reshape

_SHARES = {
    "conv": 0.20, "pointwise": 0.18, "depthwise": 0.10, "large depthwise": 0.03, "grouped": 0.10, "linear": 0.09,
    "permute": 0.09, "reshape": 0.05, "add": 0.03, "clip": 0.02, "curve": 0.02, "max pool": 0.03, "mean pool": 0.02,
    "global mean": 0.02, "copy": 0.02,
}  # fmt: skip
# A fit needs this many, a quarter of which only judge it.
_LEAST = 10
_SIZES = (2, 4, 7, 8, 14, 16, 28, 32, 56, 112)
_CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)
_FEATURES = (*_CHANNELS[4:], 10, 1000, 1024)
_KERNELS = ((3, 3), (3, 3), (3, 3), (1, 3), (3, 1), (5, 5), (7, 7))
_DEPTHWISE_KERNELS = ((3, 3), (3, 3), (1, 3), (3, 1), (5, 5), (1, 1))
# Numbers that channels are split into.
_PARTS = (2, 3, 4, 6, 8, 16, 32, 48)
_ORDERS = ((0, 2, 1, 3, 4), (0, 3, 1, 2, 4), (0, 2, 3, 1, 4))
_MOST_MACS = 150_000_000
_MOST_VALUES = 2_000_000


def calibration_primitives(count: int = 1000, seed: int = 0) -> list[Primitive]:
    """Draw about ``count`` different primitives, enough of each kind."""
    random = Random(seed)  # noqa: S311
    primitives: list[Primitive] = []
    for name, share in _SHARES.items():
        drawn: dict[Primitive, None] = {}
        while len(drawn) < max(_LEAST, round(count * share)):
            primitive = _draw(name, random)
            if primitive.macs <= _MOST_MACS and primitive.in_elements + primitive.out_elements <= _MOST_VALUES:
                drawn[primitive] = None
        primitives += drawn
    return primitives


def _draw(name: str, random: Random) -> Primitive:
    if name == "linear":
        rows = random.choice((1, 1, 1, 4, 16, 64))
        return Linear(rows, random.choice(_FEATURES), random.choice(_FEATURES))
    size, stride = random.choice(_SIZES), random.choice((1, 1, 1, 2))
    if name in ("reshape", "add", "clip", "curve", "max pool", "mean pool", "global mean", "copy"):
        return _draw_memory_bound(name, size, random)
    if name == "permute":
        axes = (random.choice(_PARTS), random.choice(_PARTS), random.choice((1, 1, 2, 4)))
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
        batch = random.choice((1, 1, 1, 1, 4, 16, 64))  # channels that were folded into the batch
    spatial = (-(-size // stride),) * 2
    padding = tuple(taps // 2 for taps in kernel)
    return Conv((batch, channels, size, size), out, kernel, (stride, stride), (1, 1), groups, spatial, padding)


def _draw_memory_bound(name: str, size: int, random: Random) -> Primitive:
    """Draw a primitive that computes little or nothing for each value that it moves."""
    channels = random.choice(_CHANNELS[4:])
    shape = (1, channels, size, size)
    if name == "reshape":
        parts = random.choice([part for part in range(2, channels + 1) if channels % part == 0])
        folded, whole = (parts, channels // parts, size * size), (1, channels, size * size)
        return Reshape(folded, whole) if random.random() < 0.5 else Reshape(whole, folded)
    if name == "add":
        return Elementwise("add", shape, random.choice((1, 2)))
    if name in ("clip", "curve"):
        return Elementwise("clip" if name == "clip" else "curve", shape)
    if name == "copy":
        return Copy(shape, random.choice((2, 2, 3)))
    if name == "global mean":
        return Pool("mean", shape, (size, size), (size, size), (1, 1))
    kernel = random.choice((2, 3))
    out = max(2, size // 2)
    return Pool("max" if name == "max pool" else "mean", shape, (kernel,) * 2, (2, 2), (out, out))
