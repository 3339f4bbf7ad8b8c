"""Networks that others designed: how much of each can be compressed, whether its MACs are counted right, its exports.

Each network has a process of its own, with limits of time and memory. Rows are kept in the folder ``--work``, so a
killed run goes on; use another folder for another release. The networks are those of timm and torchvision; their wheels
are installed by themselves, because torchvision's asks for another build of torch::

    pip install --no-deps torchvision==0.28.0 timm==1.0.31

``--quick`` takes two small networks.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._result import Claim, parser, publish
from benchmarks._zoo_network import TARGETS
from benchmarks._zoo_networks import NETWORKS, absent_packages

_QUICK = ("timm:lcnet_050", "timm:tinynet_e")
_LIMIT_S = 600
_LIMIT_BYTES = 8 * 2**30


def main(arguments: Sequence[str] | None = None) -> None:
    """Take every network through all phases, and publish what came of them."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--only", help="names of networks, with commas between; by default all")
    options.add_argument("--work", type=Path, default=Path("dist/zoo"), help="folder of the finished rows")
    given = options.parse_args(arguments)
    chosen = given.only.split(",") if given.only else list(_QUICK if given.quick else NETWORKS)
    unknown = sorted(set(chosen) - set(NETWORKS))
    if unknown:
        options.error(f"no network {unknown[0]!r}; known networks: {', '.join(NETWORKS)}")
    absent = absent_packages()
    for package in absent:
        Console(stderr=True).print(f"the networks of {package} are left out: it is not installed", markup=False)
    rows = [_row(name, given.work) for name in chosen if name.partition(":")[0] not in absent]
    publish(rows, _claims(rows), given.json)


def _row(name: str, work: Path) -> dict[str, Any]:
    stored = work / f"{name.replace(':', '-')}.json"
    if not stored.is_file():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work) as folder:
            found = Path(folder) / "row.json"
            failure = _failure(name, found)
            if failure is not None:
                found.write_text(json.dumps({"network": name, "process: outcome": failure}))
            found.replace(stored)
    row: dict[str, Any] = json.loads(stored.read_bytes())
    return row


def _failure(name: str, path: Path) -> str | None:
    """Run a network's process; return why it wrote no row, or None."""
    command = [sys.executable, "-m", "benchmarks._zoo_network", name, str(path)]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT_BYTES, _LIMIT_BYTES))

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, preexec_fn=limited
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {_LIMIT_S} s"
    return None if path.is_file() else f"raw exit {done.returncode}: {done.stderr[-500:]}"


def _claims(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    def passed(precision: str) -> int:
        wanted = [f"{kind} {given}: outcome" for kind, given in TARGETS if given == precision]
        return sum(all(row.get(key) == "ok" for key in wanted) for row in rows)

    unequal = sum("macs" not in row or row["macs"] != row["flop_counter_macs"] for row in rows)
    outcomes = [str(value) for row in rows for key, value in row.items() if key.endswith("outcome")]
    raw = sum(outcome.startswith("raw") for outcome in outcomes)
    return [
        Claim(name="networks", value=len(rows), relation=">=", limit=50),
        Claim(name="networks whose MACs are not FlopCounterMode's", value=unequal, relation="<=", limit=0),
        Claim(name="raw exceptions", value=raw, relation="<=", limit=0),
        Claim(name="dense, verified in all formats, fp32", value=passed("fp32"), relation=">=", limit=45),
        Claim(name="dense, verified in LiteRT and ExecuTorch, int8", value=passed("int8"), relation=">=", limit=40),
    ]


if __name__ == "__main__":
    main()
