"""What reconstruction is worth: held-out scores of ResNet-20 on CIFAR-10 (JPEG) at fewer and fewer MACs.

Each plan is decomposed; solved for what its layers really see; and fitted block by block; and the first and the last
are distilled for one epoch. No label is used before that. No latency is involved. The CIFAR images and weights are read
from ``SEKRON_EDGE_DATA``. ``--quick`` runs a quarter of the MACs only, without distillation.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks._result import Claim, parser, publish
from benchmarks.families import QUICK_PRECISION, NoLatency
from sekron_edge.budget import Budget
from sekron_edge.pipeline import (
    LogProgress,
    calibration_inputs,
    evaluator_for,
    example_inputs,
    load_config,
    load_task,
    trained_model,
    training_inputs,
)
from sekron_edge.planner import Calibration, Plan, decompose, measure_sensitivity, score
from sekron_edge.reconstruction import ReconstructionConfig, reconstruct
from sekron_edge.task import Task
from sekron_edge.training import TrainConfig, calibration_batches, evaluate, finetune, reestimate_batch_norm

_JOB = Path(__file__).parents[1] / "examples" / "cifar_resnet.toml"
_SHARES = _HALF, _QUARTER, _EIGHTH = 0.5, 0.25, 0.125
# What must hold, as shares of images: points below dense without a label, and scores at an eighth of the MACs.
_SOLVED_LOSS, _FITTED_LOSS, _BEFORE, _AFTER = 0.015, 0.010, 0.45, 0.75


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write down."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--shares", nargs="+", type=float, default=list(_SHARES), help="of the dense model's MACs")
    given = options.parse_args(arguments)
    config = load_config(_JOB)
    task = load_task(config)
    model = trained_model(config, task, LogProgress())
    epoch = config.finetune.model_copy(update={"epochs": 1, "seed": config.seed, "precision": QUICK_PRECISION})
    rows = list(_rows(model, task, [_QUARTER] if given.quick else given.shares, None if given.quick else epoch))
    publish(rows, [claim for row in rows for claim in _claims(row)], given.json)


def _rows(model: nn.Module, task: Task, shares: Sequence[float], epoch: TrainConfig | None) -> Iterator[dict[str, Any]]:
    calibration = Calibration(model, (calibration_inputs(task),))
    scores = score(model, example_inputs(task), NoLatency(), calibration=calibration.inputs)
    scores = measure_sensitivity(scores, calibration, divergence=task.distillation)
    evaluator = evaluator_for(calibration, task)
    dense = evaluate(model, task)
    for share in shares:
        first = evaluator.plan(scores, Budget.model_validate({"macs": f"{share}x"}), profile="none", runtime="none")
        plan, _ = evaluator.exchanged(scores, first)
        yield {
            "share": share,
            "MACs": f"{plan.cost.macs / plan.dense.macs:.3f}x",
            "dense": dense,
            "divergence": first.divergence,
            "after exchanges": plan.divergence,
            **_scores(model, task, calibration, plan, epoch),
        }


def _scores(
    model: nn.Module, task: Task, calibration: Calibration, plan: Plan, epoch: TrainConfig | None
) -> dict[str, float]:
    """Return the scores of one plan, step by step, and the seconds that reconstruction took."""
    config = ReconstructionConfig()
    inputs = training_inputs(task, config.samples, 0)
    decomposed = decompose(model, plan, calibration=calibration.inputs)
    began = time.perf_counter()
    fitted, _ = reconstruct(decomposed, model, plan.structures(), inputs, config=config)
    seconds = time.perf_counter() - began
    solved, _ = reconstruct(decomposed, model, plan.structures(), inputs, config=config.model_copy(update={"steps": 0}))
    settled = {
        name: reestimate_batch_norm(one, calibration_batches(task))
        for name, one in (("decomposed", decomposed), ("solved", solved), ("fitted", fitted))
    }
    found = {name: evaluate(one, task) for name, one in settled.items()}
    if epoch is not None:
        for name in ("decomposed", "fitted"):
            small = finetune(settled[name], model, task, config=epoch, progress=False)
            found[f"{name}, one epoch"] = evaluate(small, task)
    return {**found, "seconds": seconds}


def _claims(row: dict[str, Any]) -> Iterator[Claim]:
    if row["share"] == _HALF:
        for how, most in (("solved", _SOLVED_LOSS), ("fitted", _FITTED_LOSS)):
            name = f"points below dense at half the MACs, {how}, without labels"
            yield Claim(name=name, value=row["dense"] - row[how], relation="<=", limit=most)
    if row["share"] == _EIGHTH:
        yield Claim(
            name="score at an eighth of the MACs before labels", value=row["fitted"], relation=">=", limit=_BEFORE
        )
        if "fitted, one epoch" in row:
            name = "score at an eighth of the MACs after one epoch"
            yield Claim(name=name, value=row["fitted, one epoch"], relation=">=", limit=_AFTER)


if __name__ == "__main__":
    main()
