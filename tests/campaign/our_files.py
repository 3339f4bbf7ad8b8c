"""Faults of what is kept between runs: the cache, the store, unfinished jobs."""

from __future__ import annotations

from pathlib import Path

from sekron_edge import cache
from sekron_edge.latency import LatencyModel
from sekron_edge.measurement import MeasurementStore
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work
from tests.campaign.bundles import planned
from tests.campaign.faults import bytes_altered, json_altered
from tests.campaign.subjects import Accepting, Subject


def kept_result(folder: Path) -> Subject:
    """A file of the cache, damaged."""
    model = LatencyModel.estimated(gmacs_per_second=10, values_per_microsecond=1000, call_us=1)
    path = folder / "latency.json"

    def use() -> object:
        found = cache.cached(
            path,
            read=lambda path: LatencyModel.model_validate_json(path.read_bytes()),
            make=lambda: model,
            write=lambda made, path: path.write_text(made.model_dump_json()),
        )
        return found.model_dump_json()

    use()
    victims = (path, path.with_name("latency.json.sha256"))
    return Subject(folder, use, victims, bytes_altered, Accepting.UNCHANGED, ours=(folder,))


def kept_measurements(folder: Path) -> Subject:
    """The store of measurements, damaged."""
    store = MeasurementStore(folder / "measurements.sqlite")
    store.measurements()

    def use() -> object:
        return store.measurements(), store.calibrations()

    return Subject(folder, use, (store.path,), bytes_altered, ours=(folder,))


def unfinished_job(folder: Path) -> Subject:
    """The plan or the state of an unfinished job, damaged."""
    out, work = folder / "out", folder / "out.work"
    with claimed(out, resume=False) as output:
        Work(output, {"seed": "1"}).keep(planned())

    def use() -> object:
        with claimed(out, resume=True) as output:
            return Work(output, {"seed": "1"}).plan()

    use()
    return Subject(folder, use, (work / "plan.json", work / "job.json"), json_altered, ours=(work,))
