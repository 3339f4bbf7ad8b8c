"""For all tests."""

from collections import Counter

import pytest

from sekron_edge.latency import _calibration


def pytest_collection_modifyitems(items):
    """Begin with the files that have most slow tests: several processes then end at about the same time."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def calibrations_need_not_be_good(monkeypatch):
    """Let rounds follow at once: tests can do without waiting for a busy machine's better minutes."""
    monkeypatch.setattr(_calibration, "_EVERY_S", 0.0)
