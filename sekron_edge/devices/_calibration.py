"""Calibration: primitives timed on a device, and the latency model fitted to them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

from sekron_edge import files
from sekron_edge.artifacts import Precision, PrimitiveExporter, get_exporter
from sekron_edge.devices import _hostinfo
from sekron_edge.devices._latency import LatencyModel, fit
from sekron_edge.devices._local import LocalDevice
from sekron_edge.errors import DeviceError
from sekron_edge.primitives import Conv, Linear, Permute, Primitive

_COUNTS = {"conv": 72, "pointwise": 40, "depthwise": 20, "grouped": 24, "linear": 24, "permute": 32}
_SIZES = (4, 7, 8, 14, 16, 28, 32, 56)
_CHANNELS = (1, 3, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_KERNELS = ((3, 3), (3, 3), (1, 3), (3, 1), (5, 5))
_MOST_MACS = 60_000_000
_MOST_VALUES = 1_000_000
_HELD_OUT_EVERY = 4
_RUNS = 12


def calibration_primitives(seed: int = 0) -> list[Primitive]:
    """Draw the primitives to time: shapes as they occur in networks for small devices."""
    random = Random(seed)  # noqa: S311
    found: list[Primitive] = []
    for name, count in _COUNTS.items():
        drawn: set[Primitive] = set()
        while len(drawn) < count:
            primitive = _draw(name, random)
            if primitive.macs <= _MOST_MACS and primitive.in_elements + primitive.out_elements <= _MOST_VALUES:
                drawn.add(primitive)
        found += sorted(drawn, key=str)
    return found


def _draw(name: str, random: Random) -> Primitive:
    channels, out = random.choice(_CHANNELS), random.choice(_CHANNELS)
    if name == "linear":
        return Linear(random.choice((1, 1, 4, 64, 784)), random.choice(_CHANNELS[3:]), random.choice(_CHANNELS[3:]))
    size = random.choice(_SIZES)
    if name == "permute":
        axes = (random.choice((2, 4, 8)), random.choice((2, 4, 8, 16)), random.choice((1, 2, 4)))
        return Permute((1, *axes, size * size), random.choice(((0, 2, 1, 3, 4), (0, 3, 1, 2, 4), (0, 2, 3, 1, 4))))
    kernel = (1, 1) if name == "pointwise" else random.choice(_KERNELS)
    stride = random.choice((1, 1, 1, 2))
    batch, groups = 1, 1
    if name == "depthwise":
        channels = out = max(channels, 4)
        groups = channels
    elif name == "grouped":
        groups, kernel = random.choice((2, 4, 8)), random.choice(((1, 1), (3, 3)))
        channels, out = groups * random.choice((2, 4, 8)), groups * random.choice((2, 4, 8))
    else:
        batch = random.choice((1, 1, 1, 4, 16))
    spatial = (-(-size // stride),) * 2
    return Conv((batch, channels, size, size), out, kernel, (stride, stride), (1, 1), groups, spatial)


def calibrate(runtime: str, *, precision: Precision = "fp32", threads: int = 1, seed: int = 0) -> LatencyModel:
    """Time primitives on this machine and fit a latency model; every fourth only judges it.

    Args:
        runtime: An export format whose exporter can write single primitives.
        precision: Of the primitives.
        threads: That the runtime may use.
        seed: Of the draw.

    Raises:
        DeviceError: If the exporter cannot write single primitives in this precision, or the measurement fails.
    """
    exporter = get_exporter(runtime)
    if not isinstance(exporter, PrimitiveExporter) or precision not in exporter.primitive_precisions:
        raise DeviceError(
            f"the {runtime} exporter writes no single primitives in {precision}, so nothing can be calibrated with it"
        )
    primitives = calibration_primitives(seed)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            exporter.export_primitive(primitive, Path(folder) / f"{index}{exporter.suffix}", precision=precision)
            for index, primitive in enumerate(primitives)
        ]
        measured = LocalDevice().measure_together(artifacts, runs=_RUNS, warmup=3, threads=threads)
    # What the cheapest takes is the call from Python, not the operator.
    call = min(found.min_ms for found in measured)
    times = {p: max(found.median_ms - call, call / 10) for p, found in zip(primitives, measured, strict=True)}
    held_out = {p: time for index, (p, time) in enumerate(times.items()) if index % _HELD_OUT_EVERY == 0}
    fitted = {p: time for p, time in times.items() if p not in held_out}
    cpu = _hostinfo.cpu_model() or "this machine"
    source = f"fitted to {len(fitted)} operations measured on {cpu} with {runtime} {measured[0].runtime_version} {precision}"
    return fit(fitted, held_out, source=f"{source}, {threads} thread{'s' if threads > 1 else ''}")


def cached_calibration(
    runtime: str, *, precision: Precision = "fp32", threads: int = 1, cache: Path | None = None
) -> LatencyModel:
    """Return the calibration of this machine, measured once for each CPU, runtime version and thread count.

    Args:
        runtime: As for `calibrate`.
        precision: As for `calibrate`.
        threads: That the runtime may use.
        cache: Folder; by default `files.cache_folder`.

    Raises:
        DeviceError: As `calibrate`.
    """
    versions = get_exporter(runtime).availability().versions
    key = files.fingerprint(_hostinfo.cpu_model(), runtime, sorted(versions.items()), precision, threads, _COUNTS)
    path = (cache or files.cache_folder()) / f"latency-{runtime}-{precision}-{key}.json"
    if path.is_file():
        return LatencyModel.model_validate_json(path.read_bytes())
    model = calibrate(runtime, precision=precision, threads=threads)
    files.write_text(path, model.model_dump_json(indent=2) + "\n")
    return model
