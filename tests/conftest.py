"""For all tests."""

import pytest

from sekron_edge.devices import _calibration


@pytest.fixture(autouse=True)
def calibrations_need_not_be_good(monkeypatch):
    """Let rounds follow at once: tests can do without waiting for a busy machine's better minutes."""
    monkeypatch.setattr(_calibration, "_APART_S", 0.0)
