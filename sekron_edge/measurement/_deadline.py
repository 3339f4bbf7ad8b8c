"""Everything that a measurement does ends by one time."""

from __future__ import annotations

import time

from sekron_edge.errors import DeviceError
from sekron_edge.measurement._protocol import MeasurementRequest


class Deadline:
    """A time until which all of something must be done.

    Args:
        seconds: From now.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @classmethod
    def of(cls, request: MeasurementRequest) -> Deadline:
        """Return the time by which a request must be done that is taken up now."""
        return cls(request.conditions.timeout_s)

    @property
    def left(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> float:
        """Seconds since it was set."""
        return self.seconds - (self._end - time.monotonic())

    def missed(self, device: str, request: MeasurementRequest) -> DeviceError:
        """Return the error that says so."""
        return DeviceError(
            f"{device}: measuring {request.names} took longer than {self.seconds:g} s; ask for fewer than "
            f"{request.conditions.runs} runs or allow more"
        )
