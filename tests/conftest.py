"""For all tests."""

from collections import Counter
from pathlib import Path

import pytest

from sekron_edge.latency import _calibration

# Folders whose tests measure: the others may share what was calibrated once.
_MEASURING = {"devices", "latency", "measurement"}


def pytest_collection_modifyitems(items):
    """Begin with the files that have most slow tests: several processes then end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def calibrations_need_not_be_good(monkeypatch):
    """Let rounds follow at once: tests can do without waiting for a busy machine's better minutes."""
    monkeypatch.setattr(_calibration, "_EVERY_S", 0.0)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what a test measures out of the user's store."""
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "own cache"))


@pytest.fixture(autouse=True)
def own_cache_where_tests_measure(request: pytest.FixtureRequest) -> None:
    """Give these folders' tests caches of their own."""
    if request.path.parent.name in _MEASURING:
        request.getfixturevalue("own_cache")
