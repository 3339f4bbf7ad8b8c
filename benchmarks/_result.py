"""What a benchmark gives: rows, claims with what was measured, and where."""

from __future__ import annotations

import argparse
import operator
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, computed_field

from sekron_edge import files
from sekron_edge.cli import print_table
from sekron_edge.devices import DeviceProfile, load_profile

_PACKAGES = ("sekron-edge", "torch", "ai-edge-litert", "litert-torch", "executorch", "coremltools", "tensorly")
_COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


class Claim(BaseModel):
    """One acceptance line: what was measured, and the limit that it is held against."""

    model_config = ConfigDict(extra="forbid")

    name: str
    value: float
    relation: Literal["<=", ">="]
    limit: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool:
        """Whether it holds."""
        return _COMPARE[self.relation](self.value, self.limit)


class Result(BaseModel):
    """Rows (of any one shape), claims, and the environment."""

    model_config = ConfigDict(extra="forbid")

    rows: list[dict[str, Any]]
    claims: list[Claim]
    environment: dict[str, Any]


def environment() -> dict[str, Any]:
    """Return what the figures depend on."""
    host: DeviceProfile = load_profile("host")
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": None if host.facts.cpu is None else host.facts.cpu.value,
        "cores": os.cpu_count(),
        "packages": packages,
    }


def parser(description: str) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help="a smaller run, for a first look")
    options.add_argument("--json", type=Path, required=True, help="file to write rows, claims and environment to")
    return options


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def publish(rows: Sequence[dict[str, Any]], claims: Sequence[Claim], path: Path) -> None:
    """Print rows and claims as tables, rows of one kind together, and write them all down."""
    for columns in dict.fromkeys(tuple(row) for row in rows):
        print_table(list(columns), [list(map(_shown, row.values())) for row in rows if tuple(row) == columns])
    verdicts = [
        [claim.name, f"{claim.value:.4g}", f"{claim.relation} {claim.limit:g}", "yes" if claim.holds else "NO"]
        for claim in claims
    ]
    print_table(["claim", "value", "limit", "holds"], verdicts)
    result = Result(rows=list(rows), claims=list(claims), environment=environment())
    files.write_text(path, result.model_dump_json(indent=2) + "\n")
