"""Calibration: primitives timed on a device, and the latency model fitted to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sekron_edge import files
from sekron_edge.artifacts import Precision, PrimitiveExporter, get_exporter
from sekron_edge.devices import _hostinfo
from sekron_edge.devices._design import calibration_primitives
from sekron_edge.devices._device import Device
from sekron_edge.devices._latency import LatencyModel, fit
from sekron_edge.devices._local import LocalDevice
from sekron_edge.devices._store import MeasurementStore
from sekron_edge.errors import DeviceError

_HELD_OUT_EVERY = 4
_RUNS = 24
# Raised when the same machine would be calibrated otherwise.
_DESIGN = 8


def calibrate(
    runtime: str,
    *,
    store: MeasurementStore,
    precision: Precision = "fp32",
    threads: int = 1,
    seed: int = 0,
    device: Device | None = None,
) -> LatencyModel:
    """Time primitives on a device and fit a latency model; every fourth only judges it.

    Args:
        runtime: An export format whose exporter can write single primitives.
        store: Keeps every measurement.
        precision: Of the primitives.
        threads: That the runtime may use.
        seed: Of the draw.
        device: One that the runner travels to; this machine if None.

    Raises:
        DeviceError: If the exporter cannot write single primitives in this precision, the device is emulated, or the
            measurement fails.
    """
    exporter = get_exporter(runtime)
    if not isinstance(exporter, PrimitiveExporter) or precision not in exporter.primitive_precisions:
        raise DeviceError(
            f"the {runtime} exporter writes no single primitives in {precision}, so nothing can be calibrated with it"
        )
    chosen = device or LocalDevice()
    if chosen.emulated:
        raise _emulated(chosen)
    primitives = calibration_primitives(exporter.primitive_count, seed)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            exporter.export_primitive(primitive, Path(folder) / f"{index}{exporter.suffix}", precision=precision)
            for index, primitive in enumerate(primitives)
        ]
        measured = chosen.time_computations(artifacts, runs=_RUNS, threads=threads)
    if measured[0].emulated:
        raise _emulated(chosen)
    store.add(precision, threads, primitives, measured)
    # What the cheapest takes is the call from Python, not the operator.
    call = min(found.min_ms for found in measured)
    times = {p: max(found.median_ms - call, call / 10) for p, found in zip(primitives, measured, strict=True)}
    held_out = {p: time for index, (p, time) in enumerate(times.items()) if index % _HELD_OUT_EVERY == 0}
    fitted = {p: time for p, time in times.items() if p not in held_out}
    cpu = measured[0].environment.cpu or measured[0].device
    source = f"fitted to {len(fitted)} operations measured on {cpu} with {runtime} {measured[0].runtime_version}"
    said = f"{source}, {precision}, {threads} thread{'s' if threads > 1 else ''}"
    return fit(fitted, held_out, source=said, precision=precision)


def _emulated(device: Device) -> DeviceError:
    return DeviceError(f"{device.name} is emulated: its times say nothing about a device, and nothing is calibrated")


def cached_calibration(
    runtime: str,
    *,
    precision: Precision = "fp32",
    threads: int = 1,
    cache: Path | None = None,
    device: Device | None = None,
) -> LatencyModel:
    """Return the calibration of a device, measured once for each CPU, runtime version and thread count.

    Of a device that is elsewhere the name stands for its CPU and its runtime.

    Args:
        runtime: As for `calibrate`.
        precision: As for `calibrate`.
        threads: That the runtime may use.
        cache: Folder; by default `files.cache_folder`.
        device: As for `calibrate`.

    Raises:
        DeviceError: As `calibrate`.
    """
    versions = get_exporter(runtime).availability().versions
    where = _hostinfo.this_machine().cpu_model if device is None else device.name
    key = files.fingerprint(where, runtime, sorted(versions.items()), precision, threads, _DESIGN)
    folder = cache or files.cache_folder()
    path = folder / f"latency-{runtime}-{precision}-{key}.json"
    if path.is_file():
        return LatencyModel.model_validate_json(path.read_bytes())
    store = MeasurementStore.default() if cache is None else MeasurementStore(cache / "measurements.sqlite")
    model = calibrate(runtime, store=store, precision=precision, threads=threads, device=device)
    files.write_text(path, model.model_dump_json(indent=2) + "\n")
    return model
