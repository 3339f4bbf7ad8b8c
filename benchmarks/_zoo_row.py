"""What is known of one network of the zoo, by phase; kept between runs."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_ROOT = Path(__file__).parents[1]
_SOURCES = ("sekron_edge", "exporters", "examples/models", "benchmarks/_zoo_images.py", "benchmarks/_zoo_networks.py",
            "benchmarks/_zoo_phases.py")  # fmt: skip


class Phase(BaseModel):
    """What came of one phase of one network.

    Attributes:
        outcome: ``ok``; or ``refused: ...``, an error of this package; or ``raw ...``, any other end.
        seconds: Wall-clock time.
        peak_gib: Most memory that the process had resident during the phase, in GiB; None where that is not known.
        figures: What was found, by name.
        sources: `sources` at that time.
        commit: The checkout's at that time; with ``+`` where files differed from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: str
    seconds: float
    peak_gib: float | None
    figures: dict[str, float]
    sources: str
    commit: str

    @property
    def ok(self) -> bool:
        """Whether it went through."""
        return self.outcome == "ok"


class Row(BaseModel):
    """One network's phases, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: str
    phases: dict[str, Phase] = {}

    def with_phase(self, name: str, phase: Phase) -> Row:
        """Return the row with one more phase, or another outcome of one."""
        return self.model_copy(update={"phases": {**self.phases, name: phase}})


def sources() -> str:
    """Return a short hash of everything here that decides a row: rows of other sources are others' rows."""
    digest = hashlib.sha256()
    for each in _SOURCES:
        path = _ROOT / each
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the checkout's short commit, with ``+`` where tracked files differ from it; empty without git."""

    def told(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.strip()

    changed = "+" if told("status", "--porcelain", "--untracked-files=no") else ""
    return told("rev-parse", "--short", "HEAD") + changed
