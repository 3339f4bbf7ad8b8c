"""For all tests."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Exports make millions of objects that live on: to look for cycles among them every few hundred takes a tenth of all.
gc.set_threshold(1_000_000, 20, 100)

# What their tests share is a job, and made once in a process.
_JOBS = {"test_job.py", "test_microcontroller.py", "test_examples.py"}
# Of reconstruction in tests; jobs that run in processes of their own say the same in their files.
SAMPLES, STEPS = 128, 60
# Folders whose tests measure: the others may share what was calibrated once.
_MEASURING = {"devices", "latency", "measurement"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with jobs, which take longest, then with the files that have most slow tests: the end is shared evenly."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name not in _JOBS, -slow[item.path]))


@pytest.fixture(scope="session", autouse=True)
def calibrations_need_not_be_good() -> Iterator[None]:
    """Calibrate with fewer operations, in one round: a good model of this machine takes a minute of it.

    Most tests calibrate on the way to something else, some of them for a device whose times are estimated from this
    machine's.
    """
    from sekron_edge.artifacts import get_exporter
    from sekron_edge.latency import _calibration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_calibration, "_ROUNDS", 1)
        patch.setattr(_calibration, "_EVERY_S", 0.0)  # tests can do without waiting for a busy machine's better minutes
        patch.setattr(type(get_exporter("litert")), "primitive_count", 240)
        yield


@pytest.fixture(scope="session", autouse=True)
def reconstructions_need_not_be_good() -> Iterator[None]:
    """Fit blocks for a few steps, on few inputs: a job's full number takes a quarter of a minute of a small network."""
    from sekron_edge.pipeline import Job, _reconstruction
    from sekron_edge.reconstruction import ReconstructionConfig

    afforded = _reconstruction._afforded

    def few(job: Job) -> ReconstructionConfig:
        config = afforded(job)
        most = {"samples": min(config.samples, SAMPLES), "steps": min(config.steps, STEPS)}
        return config.model_copy(update=most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reconstruction, "_afforded", few)
        yield


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what a test measures out of the user's store."""
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "own cache"))


@pytest.fixture(autouse=True)
def own_cache_where_tests_measure(request: pytest.FixtureRequest) -> None:
    """Give these folders' tests caches of their own."""
    if request.path.parent.name in _MEASURING:
        request.getfixturevalue("own_cache")


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give tests that have no cache of their own one of this session's: the user's is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEKRON_EDGE_CACHE", str(tmp_path_factory.mktemp("session") / "cache"))
        yield


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Return what puts calibrations of this machine into a cache; each is made once in a session."""
    from sekron_edge.artifacts import Precision
    from sekron_edge.latency import cached_calibration
    from sekron_edge.measurement import Device

    made = tmp_path_factory.mktemp("calibrations")

    def put_into(cache: Path, precision: Precision = "fp32", device: Device | None = None) -> None:
        cached_calibration("litert", precision=precision, device=device, cache=made)
        shutil.copytree(made, cache, dirs_exist_ok=True)

    return put_into
