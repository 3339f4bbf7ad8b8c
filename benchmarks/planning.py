"""The cost of a plan from nothing: time, processor time and peak memory, for networks of the sizes that users have.

Each network has a process of its own and an empty cache; the calibration of the latency model is made before, and does
not count. Weights are random with spectra that fall as those of trained ones. Images are photographs: those of
``imagenet_photos.zip`` in the folder that SEKRON_EDGE_DATA names, else scikit-image's four, repeated. ``--quick`` plans
a small network.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._planned_network import NETWORKS, SMALL
from benchmarks._result import Claim, parser, publish
from sekron_edge import files
from sekron_edge.latency import cached_calibration

_LIMIT_S, _LIMIT_GIB = 600.0, 6.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Plan every network in a process of its own."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--only", help="names of networks, with commas between; by default all")
    options.add_argument("--budget", default="0.5x", help="of the dense model's latency")
    given = options.parse_args(arguments)
    chosen = given.only.split(",") if given.only else [SMALL] if given.quick else [n for n in NETWORKS if n != SMALL]
    unknown = sorted(set(chosen) - set(NETWORKS))
    if unknown:
        options.error(f"no network {unknown[0]!r}; known networks: {', '.join(NETWORKS)}")
    cached_calibration("litert")
    rows = [_in_a_process(name, given.budget) for name in chosen]
    claims = [
        claim
        for row in rows
        for claim in (
            Claim(name=f"{row['network']}: plan, s", value=row["s"], relation="<=", limit=_LIMIT_S),
            Claim(name=f"{row['network']}: peak, GiB", value=row["peak GiB"], relation="<=", limit=_LIMIT_GIB),
        )
    ]
    publish(rows, claims, given.json)


def _in_a_process(name: str, budget: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cache, found = Path(folder) / "cache", Path(folder) / "row.json"
        cache.mkdir()
        for calibration in files.cache_folder().glob("latency-*.json*"):
            shutil.copy(calibration, cache)
        command = [sys.executable, "-m", "benchmarks._planned_network", name, budget, str(found)]
        subprocess.run(command, check=True, env=os.environ | {"SEKRON_EDGE_CACHE": str(cache)})
        row: dict[str, Any] = json.loads(found.read_bytes())
        return row


if __name__ == "__main__":
    main()
