"""Measurements as tables; long texts are below them, so that they fit a terminal."""

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


def figures(measured: Measurement) -> list[str]:
    """Return the figures of a measurement in the order of `FIGURES`."""
    spread = [_UNKNOWN if value is None else f"{value:.3g}" for value in (measured.p90_ms, measured.iqr_ms)]
    peak = _UNKNOWN if measured.peak_memory_bytes is None else f"{measured.peak_memory_bytes / 1e6:.2f} MB"
    return [f"{measured.runtime} {measured.runtime_version}", f"{measured.median_ms:.4g}", *spread, peak]


def milliseconds(operator: OperatorTime) -> str:
    """Return the time of an operator, as far as its clock can tell."""
    shown = operator.milliseconds
    return f"{shown:.4g}" if shown >= _TICK_MS else f"under {_TICK_MS:g}"


def short_remarks(measured: Measurement) -> str:
    """Return the remarks without their figures."""
    return ", ".join(remark.partition(":")[0] for remark in measured.remarks)


def print_report(report: MeasurementReport, devices: Sequence[str], *, operators: bool) -> None:
    """Print one table: all devices for each artifact, in their order, with the ratio to the first that measured it.

    Below it are the remarks on measurements, the reasons for missing ones, the needs of microcontrollers and, if asked
    for, the times of operators.
    """
    from sekron_edge.measurement import Measurement

    notes: list[str] = []

    def noted(texts: Sequence[str]) -> str:
        notes.extend(text for text in texts if text not in notes)
        return " ".join(str(notes.index(text) + 1) for text in texts)

    first: dict[str, Measurement] = {}
    rows = []
    both: list[Measurement | Failure] = [*report.measurements, *report.failures]
    for one in sorted(both, key=lambda one: (one.artifact_name, devices.index(one.device))):
        head = [one.artifact_name, one.device]
        if not isinstance(one, Measurement):
            rows.append([*head, "", "not measured", *[""] * 5, noted([one.message])])
            continue
        runtime, median, *rest = figures(one)
        ratio = _ratio(first.setdefault(one.artifact_sha256, one), one)
        outputs = "agree" if one.verified else "not checked"
        rows.append([*head, runtime, median, ratio, *rest, outputs, noted(one.remarks)])
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


def _needs(footprint: Footprint) -> list[str]:
    latency = "" if footprint.latency_ms is None else f"{footprint.latency_ms:.3g}"
    if footprint.latency_range_ms is not None:
        low, high = footprint.latency_range_ms
        latency += f" ({low:.3g} to {high:.3g})"
    counts = ["" if count is None else f"{count:,}" for count in (footprint.macs, footprint.cycles)]
    return [
        footprint.artifact_name,
        footprint.format,
        f"{footprint.flash_bytes:,}",
        f"{footprint.ram_bytes:,}",
        *counts,
        latency,
    ]


def _ratio(first: Measurement, second: Measurement) -> str:
    from sekron_edge.measurement import compare_latencies

    if first is second:
        return ""
    try:
        comparison = compare_latencies(first, second)
    except ConfigError:
        return "unlike"
    return "not steady" if comparison.doubts else f"{comparison.ratio:.3g}"


def _print_operators(measured: Measurement) -> None:
    title = f"operators of {measured.artifact_name} on {measured.device}"
    if not measured.operators:
        typer.echo(f"{title}: {measured.runtime} states no times of single operators there")
        return
    total = sum(one.milliseconds for one in measured.operators) or 1.0
    slowest = sorted(measured.operators, key=lambda one: -one.milliseconds)
    rows = [[one.name, milliseconds(one), f"{one.milliseconds / total:.0%}"] for one in slowest]
    print_table([title, "ms", "share"], rows[:_MOST_OPERATORS])
    if len(rows) > _MOST_OPERATORS:
        typer.echo(f"and {len(rows) - _MOST_OPERATORS} more; `sekron-edge measurements show` has all")
