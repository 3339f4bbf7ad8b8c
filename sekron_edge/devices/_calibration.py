"""Calibration: primitives timed on a device, and the latency model fitted to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sekron_edge import files
from sekron_edge.artifacts import Precision, PrimitiveExporter, get_exporter
from sekron_edge.devices import _hostinfo
from sekron_edge.devices._design import calibration_primitives
from sekron_edge.devices._latency import LatencyModel, fit
from sekron_edge.devices._local import LocalDevice
from sekron_edge.devices._store import MeasurementStore
from sekron_edge.errors import DeviceError

_HELD_OUT_EVERY = 4
_RUNS = 24
# Raised when the same machine would be calibrated otherwise.
_DESIGN = 7


def calibrate(
    runtime: str,
    *,
    store: MeasurementStore,
    precision: Precision = "fp32",
    threads: int = 1,
    seed: int = 0,
) -> LatencyModel:
    """Time primitives on this machine and fit a latency model; every fourth only judges it.

    Args:
        runtime: An export format whose exporter can write single primitives.
        store: Keeps every measurement.
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
    primitives = calibration_primitives(exporter.primitive_count, seed)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            exporter.export_primitive(primitive, Path(folder) / f"{index}{exporter.suffix}", precision=precision)
            for index, primitive in enumerate(primitives)
        ]
        measured = LocalDevice().time_computations(artifacts, runs=_RUNS, threads=threads)
    store.add(precision, threads, primitives, measured)
    # What the cheapest takes is the call from Python, not the operator.
    call = min(found.min_ms for found in measured)
    times = {p: max(found.median_ms - call, call / 10) for p, found in zip(primitives, measured, strict=True)}
    held_out = {p: time for index, (p, time) in enumerate(times.items()) if index % _HELD_OUT_EVERY == 0}
    fitted = {p: time for p, time in times.items() if p not in held_out}
    cpu = _hostinfo.this_machine().cpu_model or "this machine"
    source = f"fitted to {len(fitted)} operations measured on {cpu} with {runtime} {measured[0].runtime_version}"
    said = f"{source}, {precision}, {threads} thread{'s' if threads > 1 else ''}"
    return fit(fitted, held_out, source=said, precision=precision)


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
    key = files.fingerprint(
        _hostinfo.this_machine().cpu_model, runtime, sorted(versions.items()), precision, threads, _DESIGN
    )
    folder = cache or files.cache_folder()
    path = folder / f"latency-{runtime}-{precision}-{key}.json"
    if path.is_file():
        return LatencyModel.model_validate_json(path.read_bytes())
    store = MeasurementStore(folder / "measurements.sqlite")
    model = calibrate(runtime, store=store, precision=precision, threads=threads)
    files.write_text(path, model.model_dump_json(indent=2) + "\n")
    return model
