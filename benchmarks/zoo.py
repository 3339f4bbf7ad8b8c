"""Networks that others designed: how much of each can be compressed, whether its MACs are counted right, its exports.

Each network has a process of its own, with one thread and limits of time and memory. Finished phases are kept in the
folder ``--work``, so a killed run goes on; those of other sources are run again, except with ``--keep``, which repeats
only what did not go through. ``--stored`` runs nothing, and shows the rows that are whole. ``--plans`` adds plans for
half of LiteRT's dense latency, and the exports of what they make; it calibrates the machine first, on which nothing
else should run meanwhile. ``--markdown`` writes the table of docs/zoo.md, whose rows are in docs/zoo. The networks are
those of timm and torchvision, whose wheels are installed by themselves, because torchvision's asks for another build
of torch, and some of the examples::

    pip install --no-deps torchvision==0.28.0 timm==1.0.31

``SEKRON_EDGE_DATA`` may name a folder with ``imagenet_photos.zip``, a zip of photographs. ``--quick`` takes two small
networks.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._result import Claim, parser, publish
from benchmarks._zoo_network import run_phases
from benchmarks._zoo_networks import NETWORKS, absent_packages
from benchmarks._zoo_phases import DENSE, PLANNED, PLANS, RUNTIME, SMALLER, TARGETS, TRACE
from benchmarks._zoo_row import Phase, Row, commit, sources
from benchmarks._zoo_table import table
from sekron_edge import files
from sekron_edge.latency import cached_calibration

_QUICK = ("timm:lcnet_050", "timm:tinynet_e")
_LIMIT_S = 1200
_LIMIT_BYTES = 8 * 2**30
# Networks' processes are forked from one that has imported what takes longest: that costs more than a small network.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([
    "benchmarks._zoo_network", "litert_torch", "ai_edge_quantizer.quantizer", "executorch.export",
    "executorch.backends.xnnpack.recipes.xnnpack_recipe_provider", "executorch.runtime", "coremltools",
])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Take every network through all phases, and publish what came of them."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--only", help="names of networks, with commas between; by default all")
    options.add_argument("--work", type=Path, default=Path("dist/zoo"), help="folder of the finished rows")
    options.add_argument("--keep", action="store_true", help="keep what went through with other sources, too")
    options.add_argument("--stored", action="store_true", help="run nothing: show the rows of --work that are whole")
    options.add_argument("--plans", action="store_true", help="also plan at half of the dense latency")
    options.add_argument("--markdown", type=Path, help="file to write the table to")
    given = options.parse_args(arguments)
    chosen = given.only.split(",") if given.only else list(_QUICK if given.quick else NETWORKS)
    unknown = sorted(set(chosen) - set(NETWORKS))
    if unknown:
        options.error(f"no network {unknown[0]!r}; known networks: {', '.join(NETWORKS)}")
    if given.stored:
        whole = [row for row in map(partial(_stored, given.work), chosen) if set(DENSE) <= row.phases.keys()]
        _show(whole, given)
        return
    for precision in PLANNED if given.plans else ():
        cached_calibration(RUNTIME, precision=precision)
    phases = [*DENSE, *(PLANS if given.plans else ())]
    absent = absent_packages()
    console = Console(stderr=True)
    for package in absent:
        console.print(f"the networks of {package} are left out: it is not installed", markup=False)
    rows = []
    for name in [name for name in chosen if name.partition(":")[0] not in absent]:
        rows.append(_row(name, given.work, phases, keep=given.keep))
        failed = [f"{phase}: {found.outcome}" for phase, found in rows[-1].phases.items() if not found.ok]
        console.print(f"{name}: {'; '.join(failed) or 'ok'}", markup=False)
    _show(rows, given)


def _show(rows: Sequence[Row], given: Namespace) -> None:
    claims = _claims(rows)
    publish([_flat(row) for row in rows], claims, given.json)
    if given.markdown is not None:
        shown = list(NETWORKS)
        ordered = sorted(rows, key=lambda row: shown.index(row.network))
        files.write_text(given.markdown, table(ordered, NETWORKS, claims))


def _path(work: Path, name: str) -> Path:
    return work / f"{name.replace(':', '-')}.json"


def _stored(work: Path, name: str) -> Row:
    path = _path(work, name)
    return Row.model_validate_json(path.read_bytes()) if path.is_file() else Row(network=name)


def _row(name: str, work: Path, phases: Sequence[str], *, keep: bool) -> Row:
    stored, row = _path(work, name), _stored(work, name)
    now = sources()
    fresh = {phase: found for phase, found in row.phases.items() if found.sources == now or (keep and found.ok)}
    row = Row(network=name, phases=fresh)
    files.write_text(stored, row.model_dump_json(indent=1) + "\n")
    while missing := [phase for phase in phases if phase not in row.phases]:
        failure = _failure(name, stored, missing)
        row = Row.model_validate_json(stored.read_bytes())
        if failure is not None:
            stopped = next(phase for phase in phases if phase not in row.phases)
            row = row.with_phase(stopped, failure)
            files.write_text(stored, row.model_dump_json(indent=1) + "\n")
    return row


def _failure(name: str, path: Path, phases: Sequence[str]) -> Phase | None:
    """Run phases in a process of their own; return why it ended before the last, or None."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        spoken = Path(folder) / "stderr"
        process = _PROCESSES.Process(target=_limited, args=(name, path, phases, spoken))
        process.start()
        process.join(_LIMIT_S)
        if process.exitcode == 0:
            return None
        if process.exitcode is None:
            process.kill()
            process.join()
            outcome = f"raw: stopped after {_LIMIT_S} s"
        else:
            outcome = f"raw exit {process.exitcode}: {spoken.read_text(errors='replace')[-500:]}"
    seconds = time.perf_counter() - start
    return Phase(outcome=outcome, seconds=seconds, peak_gib=None, figures={}, sources=sources(), commit=commit())


def _limited(name: str, path: Path, phases: Sequence[str], spoken: Path) -> None:
    """Run phases within the limit of memory; what is said on standard error goes to a file."""
    resource.setrlimit(resource.RLIMIT_DATA, (_LIMIT_BYTES, _LIMIT_BYTES))
    gc.freeze()  # what was imported stays: looking through it again and again took a quarter of an export's time
    with spoken.open("w") as stream:
        os.dup2(stream.fileno(), 2)
        run_phases(name, path, phases)


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {"network": row.network}
    for name, phase in row.phases.items():
        flat |= {f"{name}: {key}": value for key, value in phase.figures.items()}
        flat |= {f"{name}: {key}": value for key, value in phase.model_dump(exclude={"figures"}).items()}
    return flat


def _claims(rows: Sequence[Row]) -> list[Claim]:
    def passed(precision: str) -> int:
        wanted = [name for name, (_, given) in TARGETS.items() if given == precision]
        return sum(all(row.phases[name].ok for name in wanted) for row in rows)

    counted = [row.phases[TRACE].figures for row in rows]
    unequal = sum("macs" not in each or each["macs"] != each["flop_counter_macs"] for each in counted)
    raw = sum(phase.outcome.startswith("raw") for row in rows for phase in row.phases.values())
    smaller = [phase for row in rows for name, phase in row.phases.items() if name in SMALLER]
    return [
        Claim(name="networks", value=len(rows), relation=">=", limit=50),
        Claim(name="networks whose MACs are not FlopCounterMode's", value=unequal, relation="<=", limit=0),
        Claim(name="raw exceptions", value=raw, relation="<=", limit=0),
        Claim(name="dense, verified in all formats, fp32", value=passed("fp32"), relation=">=", limit=45),
        Claim(name="dense, verified in LiteRT and ExecuTorch, int8", value=passed("int8"), relation=">=", limit=40),
        *([_verified(smaller)] if smaller else []),
    ]


def _verified(smaller: Sequence[Phase]) -> Claim:
    name = f"decomposed as planned, verified in LiteRT, of {len(smaller)}"
    return Claim(name=name, value=sum(phase.ok for phase in smaller), relation=">=", limit=0.9 * len(smaller))


if __name__ == "__main__":
    main()
