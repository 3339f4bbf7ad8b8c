"""int8 against int8: the dense model as any exporter quantizes it, and what the jobs deliver, in LiteRT and ExecuTorch.

The bundles of the example jobs in int8 are taken from ``--bundles``, or made there: planned for LiteRT, distilled for
at most three epochs. Their models are exported to both runtimes. ResNet-18 at 224x224 has random weights: latency and
bytes alone, planned for LiteRT at a quarter of the MACs. One thread; each pair is timed in turn. ``--quick`` takes
ResNet-18 alone. ``--without-amx`` keeps everything from the matrix unit that Intel's servers have, and phones and
boards have not; plans are made anew for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks._jobs import INT8_JOBS, finished
from benchmarks._networks import resnet18, settled
from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import export, get_exporter
from sekron_edge.budget import Budget
from sekron_edge.cli import ConsoleProgress
from sekron_edge.errors import ConfigError, DataError, InfeasibleBudgetError
from sekron_edge.latency import cached_calibration
from sekron_edge.measurement import Conditions, LocalDevice, refuse_matrix_unit
from sekron_edge.nn import factorize
from sekron_edge.pipeline import calibration_inputs
from sekron_edge.planner import ModelScores, Plan, score
from sekron_edge.task import Task
from sekron_edge.verification import score_artifact

_RUNTIMES = ("litert", "executorch")
# A quarter of the MACs; of the dense model's latency the first of these that a plan is predicted to keep.
_RESNET18_MACS = "0.25x"
_RESNET18_LATENCY = ("0.4x", "0.5x", "0.6x", "0.8x", "1.0x", "2.0x")
_FASTER = 2.4
_RUNS = 100


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, score, measure, compare."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--bundles", type=Path, default=Path("dist"), help="folder of the bundles")
    options.add_argument("--without-amx", action="store_true", help="do without Intel's matrix unit")
    given = options.parse_args(arguments)
    if given.without_amx:
        refuse_matrix_unit()
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for job in [] if given.quick else INT8_JOBS:
        try:
            rows += _job_rows(job, given.bundles)
        except (ConfigError, DataError) as error:
            Console(stderr=True).print(f"{job} is left out: {error}", markup=False)
            continue
        except InfeasibleBudgetError as error:
            Console(stderr=True).print(f"{job} cannot keep its budget here: {error}", markup=False)
            claims.append(Claim(name=f"{job}: plans that keep the budget", value=0, relation=">=", limit=1))
            continue
        claims += _job_claims(job, rows[-len(_RUNTIMES)])
    found = _resnet18_rows()
    rows += found
    name = "ResNet-18, 224x224, a quarter of the MACs: times faster, LiteRT"
    claims.append(Claim(name=name, value=found[0]["times faster"], relation=">=", limit=_FASTER))
    publish(rows, claims, given.json)


def _job_rows(job: str, bundles: Path) -> list[dict[str, Any]]:
    done = finished(job, bundles)
    inputs = calibration_inputs(done.task)
    return [_row(job, runtime, done.dense, done.small, inputs, done.task) for runtime in _RUNTIMES]


def _resnet18_rows() -> list[dict[str, Any]]:
    model, x = settled(resnet18()), torch.randn(8, 3, 224, 224)
    latency = cached_calibration("litert", precision="int8")
    file_costs = get_exporter("litert").file_costs["int8"]  # type: ignore[attr-defined]
    progress = ConsoleProgress()
    with progress.busy("scoring ResNet-18"):
        scores = score(model, (x[:1],), latency, precision="int8", file_costs=file_costs)
    plan = _quarter_of_the_macs(scores, progress)
    costs = (
        f"{plan.cost.macs:,} MACs of {plan.dense.macs:,}, {plan.cost.latency_ms:.4g} ms of {plan.dense.latency_ms:.4g}"
    )
    progress.say(f"predicted: {costs}")
    structures = plan.structures()
    small = settled(factorize(model, lambda name, *_: structures.get(name)))
    return [_row("ResNet-18, 224x224", runtime, model, small, x, None) for runtime in _RUNTIMES]


def _quarter_of_the_macs(scores: ModelScores, progress: ConsoleProgress) -> Plan:
    for latency in _RESNET18_LATENCY:
        budget = Budget.model_validate({"macs": _RESNET18_MACS, "latency_ms": latency})
        try:
            return scores.plan(budget, profile="host", runtime="litert")
        except InfeasibleBudgetError as error:
            progress.say(str(error))
    raise AssertionError("a quarter of the MACs takes more than twice the time of all of them")


def _row(
    job: str, runtime: str, dense: nn.Module, small: nn.Module, calibration: Tensor, task: Task | None
) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        before, after = (
            export(
                model.eval(), (calibration[:1],), format=runtime, precision="int8", out=folder, name=name,
                calibration=(calibration,),
            )
            for name, model in (("dense", dense), ("small", small))
        )  # fmt: skip
        scores = [None, None] if task is None else [score_artifact(one, task) for one in (before, after)]
        slow, fast = LocalDevice().measure_together([before, after], Conditions(runs=_RUNS))
    return {
        "job": job, "runtime": runtime, "dense score": scores[0], "score": scores[1],
        "dense bytes": before.size_bytes, "bytes": after.size_bytes, "dense ms": slow.median_ms, "ms": fast.median_ms,
        "times faster": slow.median_ms / fast.median_ms, "times smaller": before.size_bytes / after.size_bytes,
        "delegated": after.delegated, "steady": slow.stable and fast.stable,
    }  # fmt: skip


def _job_claims(job: str, litert: dict[str, Any]) -> list[Claim]:
    lost, faster, smaller = INT8_JOBS[job]
    below = litert["dense score"] - litert["score"]
    return [
        Claim(name=f"{job}, LiteRT: accuracy below dense int8", value=below, relation="<=", limit=lost),
        Claim(name=f"{job}, LiteRT: times faster", value=litert["times faster"], relation=">=", limit=faster),
        Claim(name=f"{job}, LiteRT: times smaller", value=litert["times smaller"], relation=">=", limit=smaller),
    ]


if __name__ == "__main__":
    main()
