"""How artifacts are measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sekron_edge.measurement._records import ComputeUnits


@dataclass(frozen=True)
class Conditions:
    """How artifacts are measured, on every device alike.

    Attributes:
        runs: Least number of timed runs of each artifact; a fast one gets more, up to half a second.
        warmup: Least number of runs before the first that counts; warming up goes on until the times settle.
        threads: That the runtime may use.
        affinity: Cores to run on; as the system likes if empty.
        compute_units: That Core ML may use.
        operators: Whether to time single operators too, by runs of their own, where the runtime can.
        timeout_s: Seconds after which a measurement is given up, everything included.
    """

    runs: int = 50
    warmup: int = 10
    threads: int = 1
    affinity: tuple[int, ...] = ()
    compute_units: ComputeUnits = "ALL"
    operators: bool = False
    timeout_s: float = 600.0


DEFAULT_CONDITIONS: Final = Conditions()
