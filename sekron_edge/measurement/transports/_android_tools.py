"""Programs that time artifacts on Android: how they are called, and what they print.

None of them has a version to tell: the program's hash stands for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sekron_edge.artifacts import Artifact
from sekron_edge.errors import DeviceError
from sekron_edge.measurement._protocol import MeasurementRequest
from sekron_edge.measurement._records import OperatorTime

# As many as allow each so many runs.
_MOST_LAUNCHES, _RUNS_OF_A_LAUNCH = 5, 4


@dataclass(frozen=True)
class Readings:
    """What the launches of a program said: runs in milliseconds, or the mean of every ``averaged`` ones."""

    milliseconds: tuple[float, ...]
    averaged: int
    peak_memory_bytes: int | None


class AndroidTool(ABC):
    """A program that times an artifact.

    Attributes:
        name: Of the program, and of its path in the user's file.
        runtime: What it runs artifacts with.
        traces: Whether it writes a trace.
        silent_if: What it may be, if it states no times.
    """

    name: str
    runtime: str
    traces: bool = False
    silent_if: str = "another program of that name"

    @abstractmethod
    def launches(self, model: str, request: MeasurementRequest) -> list[list[str]]:
        """Return the arguments of each launch that the times are made from."""

    @property
    def profile(self) -> list[str]:
        """Further arguments of a launch that times operators; none if the program cannot."""
        return []

    def operators(self, printed: str) -> tuple[OperatorTime, ...]:  # noqa: ARG002 - what a profile prints differs
        """Understand what a launch with the arguments of ``profile`` printed."""
        return ()

    @abstractmethod
    def given(self, artifact: Artifact, names: Sequence[str]) -> list[str]:
        """Return further arguments of a launch, by which it takes its inputs from files of raw values."""

    @abstractmethod
    def answering(self, model: str) -> list[str]:
        """Return the arguments of a launch that runs a model once and writes its outputs."""

    @abstractmethod
    def answers(self, count: int) -> list[str]:
        """Return the files in which so many outputs are then, one behind the other, as raw values."""

    @abstractmethod
    def read(self, printed: Sequence[str], request: MeasurementRequest) -> Readings:
        """Understand what the launches printed, but for a profile.

        Raises:
            DeviceError: If it is nothing that the program prints; `not_understood` returns it.
        """

    def not_understood(self, printed: str) -> DeviceError:
        """Return the error that says what came instead of times."""
        return DeviceError(f"{self.name} printed no times but {printed.strip()[-200:]!r}; is it {self.silent_if}?")


@runtime_checkable
class AndroidExporter(Protocol):
    """What an exporter may offer beside the rest: a program that times its artifacts on Android.

    Attributes:
        android_tool: None where a variant has none.
    """

    android_tool: AndroidTool | None


def launch_count(request: MeasurementRequest) -> int:
    """Return how often a program is launched whose times show only by their means whether they drift."""
    return max(1, min(_MOST_LAUNCHES, request.conditions.runs // _RUNS_OF_A_LAUNCH))


def runs_of_a_launch(request: MeasurementRequest) -> int:
    """Return the least number of runs of each of these launches."""
    return -(-request.conditions.runs // launch_count(request))
