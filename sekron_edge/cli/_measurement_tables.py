"""Measurements as tables: what is long stands below them, so that they fit a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from sekron_edge.cli._console import print_table
from sekron_edge.errors import ConfigError

if TYPE_CHECKING:
    from sekron_edge.measurement import Failure, Footprint, Measurement, MeasurementReport, OperatorTime

FIGURES = ("runtime", "median ms", "p90 ms", "IQR ms", "memory")
_MOST_OPERATORS = 12
_TICK_MS = 0.001  # of the clocks that profilers use
_UNKNOWN = "unknown"


def figures(found: Measurement) -> list[str]:
    """Return what `FIGURES` name of a measurement."""
    spread = [_UNKNOWN if value is None else f"{value:.3g}" for value in (found.p90_ms, found.iqr_ms)]
    peak = _UNKNOWN if found.peak_memory_bytes is None else f"{found.peak_memory_bytes / 1e6:.2f} MB"
    return [f"{found.runtime} {found.runtime_version}", f"{found.median_ms:.4g}", *spread, peak]


def milliseconds(operator: OperatorTime) -> str:
    """Return the time of an operator, as far as its clock can tell."""
    shown = operator.milliseconds
    return f"{shown:.4g}" if shown >= _TICK_MS else f"under {_TICK_MS:g}"


def short_remarks(found: Measurement) -> str:
    """Return the remarks without their figures."""
    return ", ".join(remark.partition(":")[0] for remark in found.remarks)


def print_report(report: MeasurementReport, devices: Sequence[str], *, operators: bool) -> None:
    """Print one table: of each artifact all devices in their order, with the ratio to the first that measured it.

    Below it stand the remarks on measurements, why others were not made, what microcontrollers need, and, if asked for,
    what operators take.
    """
    from sekron_edge.measurement import Measurement

    notes: list[str] = []

    def noted(texts: Sequence[str]) -> str:
        notes.extend(text for text in texts if text not in notes)
        return " ".join(str(notes.index(text) + 1) for text in texts)

    first: dict[str, Measurement] = {}
    rows = []
    both: list[Measurement | Failure] = [*report.measurements, *report.failures]
    for found in sorted(both, key=lambda one: (one.artifact_name, devices.index(one.device))):
        head = [found.artifact_name, found.device]
        if not isinstance(found, Measurement):
            rows.append([*head, "", "not measured", *[""] * 5, noted([found.message])])
            continue
        runtime, median, *rest = figures(found)
        ratio = _ratio(first.setdefault(found.artifact_sha256, found), found)
        outputs = "agree" if found.verified else "not checked"
        rows.append([*head, runtime, median, ratio, *rest, outputs, noted(found.remarks)])
    if rows:
        print_table(["artifact", "device", *FIGURES[:2], "of first", *FIGURES[2:], "outputs", "note"], rows)
    for number, note in enumerate(notes, start=1):
        typer.echo(f"note {number}: {note}")
    if report.footprints:
        columns = ["artifact", "for", "flash bytes", "memory bytes", "MACs", "cycles", "ms"]
        print_table(columns, [_needs(needed) for needed in report.footprints])
        for needed in report.footprints:
            typer.echo(f"{needed.artifact_name}: {needed.source}")
    for measured in report.measurements if operators else ():
        _print_operators(measured)


def _needs(found: Footprint) -> list[str]:
    latency = "" if found.latency_ms is None else f"{found.latency_ms:.3g}"
    if found.latency_range_ms is not None:
        low, high = found.latency_range_ms
        latency += f" ({low:.3g} to {high:.3g})"
    counts = ["" if count is None else f"{count:,}" for count in (found.macs, found.cycles)]
    return [found.artifact_name, found.format, f"{found.flash_bytes:,}", f"{found.ram_bytes:,}", *counts, latency]


def _ratio(first: Measurement, second: Measurement) -> str:
    from sekron_edge.measurement import compare_latencies

    if first is second:
        return ""
    try:
        comparison = compare_latencies(first, second)
    except ConfigError:
        return "unlike"
    return "not steady" if comparison.doubts else f"{comparison.ratio:.3g}"


def _print_operators(found: Measurement) -> None:
    title = f"operators of {found.artifact_name} on {found.device}"
    if not found.operators:
        typer.echo(f"{title}: {found.runtime} states no times of theirs there")
        return
    total = sum(one.milliseconds for one in found.operators) or 1.0
    slowest = sorted(found.operators, key=lambda one: -one.milliseconds)
    rows = [[one.name, milliseconds(one), f"{one.milliseconds / total:.0%}"] for one in slowest]
    print_table([title, "ms", "share"], rows[:_MOST_OPERATORS])
    if len(rows) > _MOST_OPERATORS:
        typer.echo(f"and {len(rows) - _MOST_OPERATORS} more; `sekron-edge measurements show` has all")
