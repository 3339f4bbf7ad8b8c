"""docs/zoo.md, from the rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from benchmarks._result import Claim, environment
from benchmarks._zoo_phases import DENSE, PLANNED, PLANS, SCORES, SMALLER, TARGETS, TRACE
from benchmarks._zoo_row import Phase, Row

_HEAD = """\
# Others' networks

What becomes of networks that were designed elsewhere: those of timm and torchvision, and kinds that these lack, from
`examples/models`. `benchmarks/zoo.py` wrote this page; do not edit it.

    python -m benchmarks.zoo --work docs/zoo --json dist/zoo.json --markdown docs/zoo.md

Weights are random. Parameters that initialisation leaves at zero are drawn: without that, whole branches would compute
nothing. Batch norms have the statistics of 16 photographs, and biases of about 1: with biases of 0 a deep network of
random weights multiplies every difference from layer to layer, and no rounding can be small in it.

The same 16 photographs calibrate int8. Eight others, and noise, verify each artifact against the model: the table gives
the signal-to-noise ratio on these eight, in dB. The limits are 60 dB in fp32 and 15 dB in int8
([precisions](precisions.md)). Networks with random weights decide nothing, so decisions are not compared.

"Covered" is the share of the network's MACs in layers that can be compressed. MACs are those of the exported graph;
they are compared to those of `torch.utils.flop_counter`.
"""
_PLANS = """\
Plans for half of the dense latency in LiteRT on this machine, one thread, as its latency model predicts; where more is
needed at least, for 2 % more than that. Nothing is trained, and the networks' weights are random: the table shows what
there is to choose from, and that what was chosen can be exported. Numbers in dB are those of the artifact against the
decomposed model.
"""


def table(rows: Sequence[Row], shapes: Mapping[str, tuple[int, int, int]], claims: Sequence[Claim]) -> str:
    """Return the page."""
    reasons: list[str] = []
    shown = [*DENSE, *(PLANS if any(SCORES in row.phases for row in rows) else ())]
    lines = [_HEAD]
    found = environment()
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    lines += [
        f"Machine: {found['cpu'] or 'unknown processor'}, {os.cpu_count()} cores, one thread.",
        f"{found['date']}. {packages}.",
        "Times are single runs on a machine that others used at the same time: they show an order of magnitude.",
        "",
        *_commits(rows),
        "",
        *_absent([name for name in shapes if name not in {row.network for row in rows}]),
        "## What was claimed",
        "",
        "| claim | found | limit | holds |",
        "|---|---|---|---|",
        *(f"| {c.name} | {c.value:g} | {c.relation} {c.limit:g} | {'yes' if c.holds else '**no**'} |" for c in claims),
        "",
        "## Exports",
        "",
        "A number in brackets is a reason below.",
        "",
        f"| network | input | parameters | MACs | covered | {' | '.join(TARGETS)} |",
        "|---|---|--:|--:|--:|" + "--:|" * len(TARGETS),
        *(_exports(row, shapes[row.network], reasons) for row in rows),
        "",
        *_plans(rows, reasons),
        *_reasons(reasons),
        "## Time and memory",
        "",
        "Seconds, and the most memory that was resident, in GiB, of export and verification together.",
        "",
        f"| network | {' | '.join(shown)} |",
        "|---|" + "--:|" * len(shown),
        *(f"| {row.network} | {' | '.join(_cost(row.phases.get(name)) for name in shown)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _absent(names: Sequence[str]) -> list[str]:
    return [f"Not run, or not to the end: {', '.join(names)}.", ""] if names else []


def _reasons(reasons: Sequence[str]) -> list[str]:
    return ["## Reasons", "", *(f"{place}. {reason}" for place, reason in enumerate(reasons, 1)), ""] if reasons else []


def _commits(rows: Sequence[Row]) -> list[str]:
    count: dict[str, int] = {}
    for row in rows:
        for phase in row.phases.values():
            count[phase.commit] = count.get(phase.commit, 0) + 1
    shown = ", ".join(f"{commit} ({number})" for commit, number in sorted(count.items(), key=lambda pair: -pair[1]))
    return [f"Commits, and how many phases ran at each (`+`: with changes that were committed later): {shown}."]


def _exports(row: Row, shape: tuple[int, int, int], reasons: list[str]) -> str:
    trace = row.phases[TRACE]
    cells = [row.network, "x".join(map(str, shape))]
    if trace.ok:
        macs, counted = trace.figures["macs"], trace.figures["flop_counter_macs"]
        shown = f"{macs / 1e6:.1f} M" + ("" if macs == counted else f" (counted: {counted / 1e6:.1f} M)")
        cells += [f"{trace.figures['parameters'] / 1e6:.2f} M", shown, f"{trace.figures['covered']:.1%}"]
    else:
        cells += [_reason(row.network, TRACE, trace, reasons), "", ""]
    for name in TARGETS:
        phase = row.phases[name]
        cells.append(f"{phase.figures['snr_db']:.0f}" if phase.ok else _reason(row.network, name, phase, reasons))
    return f"| {' | '.join(cells)} |"


def _reason(network: str, name: str, phase: Phase, reasons: list[str]) -> str:
    reasons.append(f"{network}, {name}: {' '.join(phase.outcome.split())}")
    return f"({len(reasons)})"


def _plans(rows: Sequence[Row], reasons: list[str]) -> list[str]:
    scored = [row for row in rows if SCORES in row.phases]
    if not scored:
        return ["Plans were not made in this run (`--plans`).", ""]
    heads = [head for precision in PLANNED for head in (f"{precision}: least", "latency", "MACs", "dB")]
    return [
        "## Plans",
        "",
        *_PLANS.splitlines(),
        "",
        f"| network | layers | candidates | {' | '.join(heads)} |",
        "|---|--:|--:|" + "--:|" * len(heads),
        *(_plan(row, reasons) for row in scored),
        "",
    ]


def _plan(row: Row, reasons: list[str]) -> str:
    scores = row.phases[SCORES]
    if not scores.ok:
        return f"| {row.network} | {_reason(row.network, SCORES, scores, reasons)} |" + " |" * (1 + 4 * len(PLANNED))
    cells = [row.network, f"{scores.figures['layers']:.0f}", f"{scores.figures['candidates']:,.0f}"]
    for name, precision in SMALLER.items():
        phase = row.phases[name]
        cells.append(f"{scores.figures[f'least {precision}']:.2f}")
        if phase.ok:
            found = phase.figures
            cells += [f"{found['latency']:.2f}", f"{found['MACs']:.2f}", f"{found['snr_db']:.0f}"]
        else:
            cells += [_reason(row.network, name, phase, reasons), "", ""]
    return f"| {' | '.join(cells)} |"


def _cost(phase: Phase | None) -> str:
    if phase is None:
        return ""
    memory = "" if phase.peak_gib is None else f", {phase.peak_gib:.1f}"
    return f"{phase.seconds:.0f}{memory}"
