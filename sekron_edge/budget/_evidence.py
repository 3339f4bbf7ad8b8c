"""Evidence that promises are held against: figures of a model beside the dense one's, and their origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sekron_edge.budget._costs import LayerCost


@dataclass(frozen=True)
class Finding:
    """One figure of a model, the dense model's figure found in the same way, and that way in words."""

    found: float
    dense: float
    how: str


class CompilerEstimate(Protocol):
    """The estimate of a neural accelerator's compiler for a model; nothing of it is measured."""

    @property
    def accelerator(self) -> str:
        """The accelerator that the model was compiled for."""
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
        """SRAM that the model needs, in bytes."""
        ...


@dataclass(frozen=True)
class Figures:
    """The known figures of one model; None where it was not looked at, or where its format has no such figure.

    Attributes:
        file_bytes: Size of the artifact.
        median_ms: Measured on the target.
        process_bytes: Peak memory that the process took for it, measured on the target.
        arena_bytes: Arena that a microcontroller's runtime needs, tested.
        compiled: Estimate of an accelerator's compiler.
        predicted: Cost in the plan.
    """

    file_bytes: int
    median_ms: float | None = None
    process_bytes: int | None = None
    arena_bytes: int | None = None
    compiled: CompilerEstimate | None = None
    predicted: LayerCost | None = None


@dataclass(frozen=True)
class Evidence:
    """The known figures of a model and of the dense one, and their origin.

    Attributes:
        found: Figures of the model.
        dense: Figures of the dense model.
        device: The target.
        place: Place where latency and memory were measured, in words.
        spread: How the latency spread over processes, in words.
        tested_with: Runtime that the arena was found with, in words.
        metric: The task's metric on held-out data.
        higher_is_better: Whether more of it is better.
    """

    found: Figures
    dense: Figures
    device: str = ""
    place: str = ""
    spread: str = ""
    tested_with: str = ""
    metric: Finding | None = None
    higher_is_better: bool = True
