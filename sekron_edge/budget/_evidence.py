"""What was found of a model beside the dense one, and how: what promises are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sekron_edge.budget._costs import LayerCost


@dataclass(frozen=True)
class Finding:
    """One figure of a model, the dense model's found in the same way, and that way in words."""

    found: float
    dense: float
    how: str


class CompilerEstimate(Protocol):
    """What the compiler of a neural accelerator says of a model; nothing of it is measured."""

    @property
    def accelerator(self) -> str:
        """What it was compiled for."""
        ...

    @property
    def clock_mhz(self) -> float:
        """The clock that the time is for."""
        ...

    @property
    def latency_ms(self) -> float:
        """Time of one inference."""
        ...

    @property
    def sram_bytes(self) -> int:
        """What it works in."""
        ...


@dataclass(frozen=True)
class Figures:
    """What is known of one model; None where nobody looked, or where its format has no such notion.

    Attributes:
        file_bytes: Size of the artifact.
        median_ms: Measured on the target.
        process_bytes: Peak memory that the process took for it, measured on the target.
        arena_bytes: What a microcontroller's runtime needs, tested.
        compiled: What an accelerator's compiler says.
        predicted: What it was planned to cost.
    """

    file_bytes: int
    median_ms: float | None = None
    process_bytes: int | None = None
    arena_bytes: int | None = None
    compiled: CompilerEstimate | None = None
    predicted: LayerCost | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known of a model and of the dense one, and where that is from.

    Attributes:
        found: Of the model.
        dense: Of the dense model.
        device: The target.
        place: Where latency and memory were measured, in words.
        tested_with: What found the arena, in words.
        metric: The task's metric on held-out data.
    """

    found: Figures
    dense: Figures
    device: str = ""
    place: str = ""
    tested_with: str = ""
    metric: Finding | None = None
