"""Run the campaign: ``python -m tests.campaign --faults 100000``; one fault: ``--kind KIND --first NUMBER``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sekron_edge import files
from tests.campaign.bundles import planned
from tests.campaign.campaign import BAD, GOOD, Tally, suffered
from tests.campaign.kinds import KINDS

_PIECE = 500


def main() -> None:
    """Let faults of every kind happen; print a table, and end with 1 if one of them ended as none may."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--faults", type=int, default=1, help="in all, shared out evenly over the kinds")
    options.add_argument("--kind", choices=KINDS, action="append", help="may be given several times; by default all")
    options.add_argument("--first", type=int, default=0, help="number of the first fault of each kind")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    options.add_argument("--markdown", type=Path, help="file to write the table to")
    given = options.parse_args()
    kinds = given.kind or list(KINDS)
    each = -(-given.faults // len(kinds))
    end = given.first + each
    pieces = [
        (kind, range(first, min(first + _PIECE, end))) for first in range(given.first, end, _PIECE) for kind in kinds
    ]
    console, started = Console(stderr=True), time.monotonic()
    tallies = {kind: Tally(kind) for kind in kinds}
    planned()  # once: torch.export is not for two threads
    with ThreadPoolExecutor(given.jobs) as pool:
        for done, found in enumerate(pool.map(lambda piece: suffered(*piece, seed=given.seed), pieces), 1):
            tally = tallies[found.kind]
            tally.counts += found.counts
            tally.examples += found.examples
            passed = time.monotonic() - started
            console.print(
                f"{done} of {len(pieces)} pieces, {passed:.0f} s: {found.kind}", markup=False, highlight=False
            )
            for number, outcome, seen in found.examples:
                console.print(f"  fault {number}: {outcome}: {seen}", markup=False, highlight=False, soft_wrap=True)
    rows = [[kind, *(f"{tally.counts[name]:,}" for name in (*GOOD, *BAD))] for kind, tally in tallies.items()]
    total = sum((tally.counts for tally in tallies.values()), Tally("").counts)
    rows.append(["all", *(f"{total[name]:,}" for name in (*GOOD, *BAD))])
    titles = ["faults of", *GOOD, *BAD]
    table = Table(*titles)
    for row in rows:
        table.add_row(*row)
    Console(width=160).print(table)
    if given.markdown is not None:
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *rows]
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        files.write_text(given.markdown, text)
    sys.exit(any(tally.bad for tally in tallies.values()))


if __name__ == "__main__":
    main()
