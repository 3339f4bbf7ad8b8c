"""Promises: random models with random budgets, and whether what is delivered keeps them when it is measured again.

Plain and depthwise CNNs on digits of 32x32 pixels, trained for some epochs; budgets of latency, bytes or both, in fp32
and int8, in LiteRT. Each artifact that was delivered is measured beside the dense one in a process that knows nothing
of the job. In int8 its held-out accuracy is compared with that of its simulation, and no job may end because a file is
noisier than verification allows. ``--precision`` draws one precision only; ``--quick`` takes three networks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import nn

from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Artifact, Precision, export
from sekron_edge.budget import Budget
from sekron_edge.cli import ConsoleProgress
from sekron_edge.data import classification, load_source
from sekron_edge.errors import InfeasibleBudgetError, VerificationError
from sekron_edge.measurement import Conditions, LocalDevice
from sekron_edge.pipeline import Compressed, calibration_inputs, compress, example_inputs
from sekron_edge.quantization import simulated
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig, evaluate, train
from sekron_edge.verification import score_artifact

_SIZE = 32
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_NOISE = 0.05
_EPOCHS = 8
_SHARES = {"latency_ms": (0.35, 0.95), "artifact_bytes": (0.15, 0.9)}
# Accuracy of an int8 file against its simulation's, as shares of images.
_AS_SIMULATED = 0.003


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, compress, measure again."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--precision", choices=_PRECISIONS, help="by default drawn, too")
    given = options.parse_args(arguments)
    random = Random(given.seed)
    precisions = _PRECISIONS if given.precision is None else (given.precision,)
    task = classification(load_source("digits", size=_SIZE), calibration_samples=128)
    progress = ConsoleProgress()
    rows: list[dict[str, Any]] = []
    for pair in range(3 if given.quick else given.pairs):
        row = _row(pair, task, random, precisions)
        progress.say(f"{row}")
        rows.append(row)
    claims = [
        Claim(
            name=f"{said}, of {len(rows)}",
            value=sum(row["outcome"] == outcome for row in rows),
            relation="<=",
            limit=0,
        )
        for outcome, said in (("broken", "budgets broken"), ("refused", "files refused by verification"))
    ]
    apart = [abs(row["int8"] - row["simulated"]) for row in rows if row["int8"] is not None]
    if apart:
        name = f"accuracy of int8 files against their simulation, furthest of {len(apart)}"
        claims.append(Claim(name=name, value=max(apart), relation="<=", limit=_AS_SIMULATED))
    publish(rows, claims, given.json)


def _row(pair: int, task: Task, random: Random, precisions: Sequence[Precision]) -> dict[str, Any]:
    torch.manual_seed(pair)
    settings = TrainConfig(epochs=_EPOCHS, threads=1, seed=pair)
    model = train(_drawn(random), task, config=settings, progress=False)
    precision = random.choice(precisions)
    entries = random.choice((("latency_ms",), ("artifact_bytes",), ("latency_ms", "artifact_bytes")))
    shares = {entry: round(random.uniform(*_SHARES[entry]), 2) for entry in entries}
    row: dict[str, Any] = {
        "pair": pair, "parameters": sum(p.numel() for p in model.parameters()), "precision": precision,
        "dense": evaluate(model, task),
        "latency budget": shares.get("latency_ms"), "byte budget": shares.get("artifact_bytes"),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            done = compress(
                model,
                example_inputs(task),
                profile="host",
                task=task,
                out=folder / "bundle",
                budget=Budget.model_validate({entry: f"{share}x" for entry, share in shares.items()}),
                formats=["litert"],
                precisions=[precision],
                finetuning=FinetuneConfig(epochs=1, threads=1),
            )
        except (InfeasibleBudgetError, VerificationError) as error:
            outcome = "infeasible" if isinstance(error, InfeasibleBudgetError) else "refused"
            return row | dict.fromkeys(("latency", "bytes", "int8", "simulated", "in float")) | {"outcome": outcome}
        (delivery,) = done.manifest.deliveries
        artifact = delivery.artifact.model_copy(update={"path": done.bundle / delivery.artifact.path})
        inputs = calibration_inputs(task)
        dense = export(
            model, example_inputs(task), format="litert", precision=precision, out=folder, calibration=(inputs,)
        )
        slow, fast = LocalDevice().measure_together([dense, artifact], Conditions(runs=100))
        scores = _int8_scores(done, artifact, task) if precision == "int8" else {"int8": None, "simulated": None}
    found = {
        "latency_ms": fast.median_ms / slow.median_ms,
        "artifact_bytes": artifact.size_bytes / dense.size_bytes,
    }
    kept = all(found[entry] <= share * (1 + _NOISE) for entry, share in shares.items())
    ratios = {"latency": found["latency_ms"], "bytes": found["artifact_bytes"]}
    return row | ratios | scores | {"in float": evaluate(done.model, task), "outcome": "kept" if kept else "broken"}


def _int8_scores(done: Compressed, artifact: Artifact, task: Task) -> dict[str, float]:
    """Return held-out scores of an int8 file, and of its simulation from the calibration data of the job."""
    report = done.manifest.quantization
    floats = report.keep_float if report is not None and report.kept else ()
    rounded = simulated(done.model, calibration_inputs(task), floats)
    return {"int8": score_artifact(artifact, task), "simulated": evaluate(rounded, task)}


def _drawn(random: Random) -> nn.Module:
    """Draw a CNN of two to five convolutions, some of them followed by a depthwise one."""
    layers: list[nn.Module] = []
    channels = 1
    for _ in range(random.randint(2, 5)):
        width = random.choice((16, 24, 32, 48, 64))
        stride = random.choice((1, 1, 2))
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        if random.random() < 0.3:
            layers += [nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))


if __name__ == "__main__":
    main()
