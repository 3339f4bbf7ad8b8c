"""Calibration: primitives timed on a device, and the latency model fitted to them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from loky import BrokenProcessPool, ProcessPoolExecutor, cpu_count

from sekron_edge import cache as cache_of_results
from sekron_edge import files
from sekron_edge.artifacts import (
    Artifact,
    Precision,
    PrimitiveExporter,
    TracedPrimitiveExporter,
    calibratable,
    get_exporter,
)
from sekron_edge.errors import DeviceError
from sekron_edge.latency._design import calibration_primitives
from sekron_edge.latency._drawing import draw_latency_model
from sekron_edge.latency._model import LatencyModel, fit
from sekron_edge.latency._plausibility import contradictions
from sekron_edge.latency._rounds import timed_in_rounds
from sekron_edge.measurement import _hostinfo
from sekron_edge.measurement._conditions import Conditions
from sekron_edge.measurement._device import Device
from sekron_edge.measurement._records import Measurement
from sekron_edge.measurement._store import MeasurementStore
from sekron_edge.measurement.transports.local import LocalDevice
from sekron_edge.primitives import Primitive

_HELD_OUT_EVERY = 4
# Rounds, if they are calm; the runs in each, and the seconds from the start of one to the start of the next.
_ROUNDS, _RUNS, _EVERY_S = 4, 8, 25.0
# Primitives in one program: each core then lowers a few programs.
_TRACED_TOGETHER = 60
# Taken for primitives that are too short for the tracer.
_SHORTEST_MS = 1e-4
# Raised when the same machine would be calibrated differently.
_DESIGN = 14


def calibrate(
    runtime: str,
    *,
    store: MeasurementStore,
    precision: Precision = "fp32",
    threads: int = 1,
    seed: int = 0,
    device: Device | None = None,
) -> LatencyModel:
    """Time primitives on a device and fit a latency model; every fourth primitive only judges it.

    Several rounds are run at intervals, and the fastest counts for each primitive: a machine that is slow for a minute
    would make all predictions too long. There are more rounds, twice as many at most, until two calm ones agree. What
    is to be doubted after that, and what earlier calibrations contradict, is in the model's `LatencyModel.doubts`. A
    primitive that runs by itself runs twice before the next one has its turn,
    and the mean counts: within a network, fewer of its values are in the caches than when it is repeated, and more than
    when others ran before it.

    Args:
        runtime: An export format whose exporter can write primitives.
        store: Keeps every measurement.
        precision: Of the primitives.
        threads: Threads that the runtime may use.
        seed: Seed of the draw.
        device: A device that the runner travels to; this machine if None.

    Raises:
        DeviceError: If the exporter cannot write primitives in this precision, the device is emulated, or the
            measurement fails.
    """
    if not calibratable(runtime, precision):
        raise DeviceError(
            f"the {runtime} exporter writes no primitives in {precision}, so nothing can be calibrated with it"
        )
    chosen = device or LocalDevice()
    if chosen.emulated:
        raise _emulated(chosen)
    exporter = get_exporter(runtime)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if isinstance(exporter, TracedPrimitiveExporter):
            primitives = calibration_primitives(exporter.primitive_count, seed)
            timed = _traced(exporter, primitives, chosen, folder, precision, threads)
            rounds = timed_in_rounds(timed, fewest=_ROUNDS, every_s=_EVERY_S)
            measured = rounds.fastest
            call = 0.0  # the tracer does not include the call
        else:
            assert isinstance(exporter, PrimitiveExporter)
            primitives = calibration_primitives(exporter.primitive_count, seed)
            timed = _alone(exporter, primitives, chosen, folder, precision, threads)
            rounds = timed_in_rounds(timed, fewest=_ROUNDS, every_s=_EVERY_S)
            measured = rounds.fastest
            # The cheapest primitive takes the time of the call from Python, not of the operator.
            call = min(one.min_ms for one in measured)
    if measured[0].emulated:
        raise _emulated(chosen)
    seen = {p: one.median_ms for p, one in zip(primitives, measured, strict=True)}
    doubts = (*rounds.doubts, *contradictions(store, measured[0], seen, precision=precision, threads=threads))
    store.add(precision, threads, primitives, measured)
    least = call / 10 or _SHORTEST_MS
    times = {p: max(one.median_ms - call, least) for p, one in zip(primitives, measured, strict=True)}
    held_out = {p: time for index, (p, time) in enumerate(times.items()) if index % _HELD_OUT_EVERY == 0}
    fitted = {p: time for p, time in times.items() if p not in held_out}
    cpu = measured[0].environment.cpu or measured[0].device
    source = f"fitted to {len(fitted)} operations measured on {cpu} with {runtime} {measured[0].runtime_version}"
    said = f"{source}, {precision}, {threads} thread{'s' if threads > 1 else ''}; {rounds}"
    if any(one.throttled for one in measured):
        said += "; the device held its clock down meanwhile: let it cool, and calibrate again"
    said += "".join(f"; doubtful: {doubt}" for doubt in doubts)
    return fit(fitted, held_out, source=said, precision=precision).model_copy(update={"doubts": doubts})


def _alone(
    exporter: PrimitiveExporter,
    primitives: Sequence[Primitive],
    device: Device,
    folder: Path,
    precision: Precision,
    threads: int,
) -> Callable[[], list[Measurement]]:
    """Write a model of each primitive; return a function that times them."""
    artifacts = [
        exporter.export_primitive(primitive, folder / f"{index}{exporter.suffix}", precision=precision)
        for index, primitive in enumerate(primitives)
    ]
    conditions = Conditions(runs=_RUNS, warmup=2, threads=threads)
    return lambda: device.time_computations(artifacts, conditions)


def _traced(
    exporter: TracedPrimitiveExporter,
    primitives: Sequence[Primitive],
    device: Device,
    folder: Path,
    precision: Precision,
    threads: int,
) -> Callable[[], list[Measurement]]:
    """Write models of many primitives each; return a function that times these by the runtime's tracer."""
    parts = [primitives[start : start + _TRACED_TOGETHER] for start in range(0, len(primitives), _TRACED_TOGETHER)]
    paths = [folder / f"{index}{exporter.suffix}" for index in range(len(parts))]
    artifacts = _in_processes(partial(exporter.export_primitives, precision=precision), parts, paths)

    conditions = Conditions(runs=1, warmup=1, threads=threads)

    def timed() -> list[Measurement]:
        measurements = []
        for part, whole in zip(parts, device.time_operators(artifacts, conditions), strict=True):
            operators = [(one.name, one.milliseconds, one.spread_ms or 0.0) for one in whole.operators]
            measurements += [
                whole.model_copy(update={"median_ms": time, "iqr_ms": spread, "min_ms": time, "operators": ()})
                for time, spread in exporter.primitive_times(part, operators)
            ]
        return measurements

    return timed


def _in_processes(
    work: Callable[[Sequence[Primitive], Path], Artifact], parts: Sequence[Sequence[Primitive]], paths: Sequence[Path]
) -> list[Artifact]:
    """Lower parts in processes of their own, because lowering is Python and keeps one core of a process busy."""
    try:
        with ProcessPoolExecutor(min(len(parts), cpu_count()), env={"OMP_NUM_THREADS": "1"}) as pool:
            return list(pool.map(work, parts, paths))
    except BrokenProcessPool as error:
        raise DeviceError(
            f"a process that lowered {len(parts[0])} operations to time ended early; is there enough memory? {error}"
        ) from error


def _emulated(device: Device) -> DeviceError:
    return DeviceError(f"{device.name} is emulated: its times say nothing about a device, and nothing is calibrated")


def cached_calibration(
    runtime: str,
    *,
    precision: Precision = "fp32",
    threads: int = 1,
    cache: Path | None = None,
    device: Device | None = None,
    again_if_doubtful: bool = False,
) -> LatencyModel:
    """Return the calibration of a device, measured once for each CPU, runtime version and thread count.

    For a remote device, its name stands for its CPU and its runtime.

    Args:
        runtime: As for `calibrate`.
        precision: As for `calibrate`.
        threads: Threads that the runtime may use.
        cache: Folder; by default `files.cache_folder`.
        device: As for `calibrate`.
        again_if_doubtful: Whether one that is kept with doubts is measured again.

    Raises:
        DeviceError: As `calibrate`.
    """
    versions = get_exporter(runtime).availability().versions
    where = _hostinfo.this_machine().cpu_model if device is None else device.name
    key = files.fingerprint(where, runtime, sorted(versions.items()), precision, threads, _DESIGN)
    folder = cache or files.cache_folder()
    path = folder / f"latency-{runtime}-{precision}-{key}.json"
    known = cache_of_results.known(path, lambda kept: LatencyModel.model_validate_json(kept.read_bytes()))
    if known is not None and not (known.doubts and again_if_doubtful):
        return known
    store = MeasurementStore.default() if cache is None else MeasurementStore(cache / "measurements.sqlite")
    model = calibrate(runtime, store=store, precision=precision, threads=threads, device=device)
    cache_of_results.keep_text(path, model.model_dump_json(indent=2) + "\n")
    return model


def draw_calibration(runtime: str, *, precision: Precision = "fp32", threads: int = 1) -> str:
    """Return a page with this machine's latency model beside the timings that it was fitted to.

    Args:
        runtime: As for `calibrate`.
        precision: As for `calibrate`.
        threads: Threads that the runtime may use.

    Raises:
        DeviceError: As `calibrate`.
    """
    model = cached_calibration(runtime, precision=precision, threads=threads)
    store = MeasurementStore.default()
    wanted = (runtime, precision, threads)
    *_, last = [one for one in store.calibrations() if (one.runtime, one.precision, one.threads) == wanted]
    medians = store.medians(last.id)
    call = 0.0 if isinstance(get_exporter(runtime), TracedPrimitiveExporter) else min(medians.values())
    return draw_latency_model(model, {p: time - call for p, time in medians.items() if time > call})
