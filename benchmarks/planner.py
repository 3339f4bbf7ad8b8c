"""The planner at full size: ResNet-18 at 224x224, how many candidates it scores, how fast it solves, what it proves.

Weights and calibration images are random: they change no time. The solver is held against exhaustive search on random
problems small enough for it. ``--quick`` scores a small plain network.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks._networks import resnet18, settled, vgg_like
from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import get_exporter
from sekron_edge.budget import Budget, LayerCost
from sekron_edge.cli import ConsoleProgress
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.latency import cached_calibration
from sekron_edge.planner import Candidate, LayerScores, ModelScores, Plan, score, solve

_BUDGETS = ("0.7x", "0.5x", "0.35x")
_CALIBRATION = 64
_SMALL_PROBLEMS = 200
_CANDIDATES, _TOTAL_S, _AGAIN_S, _GAP, _GIB = 50_000, 180.0, 2.0, 0.001, 4.0
_NOTHING = LayerCost(parameters=0, macs=0, artifact_bytes=0, latency_ms=0.0, peak_bytes=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, solve, solve again from what was saved, compare with exhaustive search."""
    given = parser(__doc__.splitlines()[0]).parse_args(arguments)
    progress = ConsoleProgress()
    name, model, size = ("VGG-like", vgg_like(), 64) if given.quick else ("ResNet-18", resnet18(), 224)
    latency = cached_calibration("litert")
    file_costs = get_exporter("litert").file_costs["fp32"]  # type: ignore[attr-defined]
    images = torch.randn(_CALIBRATION, 3, size, size)
    model = settled(model)
    with progress.busy(f"scoring {name}"):
        start = time.perf_counter()
        scores = score(model, (images[:1],), latency, file_costs=file_costs, calibration=(images,))
        scoring_s = time.perf_counter() - start
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [_row(scores, budget) for budget in _BUDGETS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        path.write_text(scores.model_dump_json())
        start = time.perf_counter()
        _planned(ModelScores.model_validate_json(path.read_bytes()), "0.6x")
        again_s = time.perf_counter() - start
    considered = sum(layer.considered for layer in scores.layers)
    kept = sum(len(layer.candidates) for layer in scores.layers)
    found = {
        "model": f"{name}, {size}x{size}", "candidates": considered, "not dominated": kept, "scoring s": scoring_s,
        "load and solve s": again_s, "peak GiB": gib,
    }  # fmt: skip
    wrong = _against_exhaustive_search()
    claims = [
        Claim(name="candidates", value=considered, relation=">=", limit=0 if given.quick else _CANDIDATES),
        Claim(name="scoring and solving, s", value=scoring_s + rows[0]["solving s"], relation="<=", limit=_TOTAL_S),
        Claim(name="a new budget from saved scores, s", value=again_s, relation="<=", limit=_AGAIN_S),
        Claim(name="largest proven gap", value=max(row["gap"] for row in rows), relation="<=", limit=_GAP),
        Claim(name="peak memory, GiB", value=gib, relation="<=", limit=_GIB),
        Claim(name=f"wrong answers in {_SMALL_PROBLEMS} small problems", value=wrong, relation="<=", limit=0),
    ]
    publish([found, *rows], claims, given.json)


def _planned(scores: ModelScores, share: str) -> Plan:
    return scores.plan(Budget.model_validate({"latency_ms": share}), profile="host", runtime="litert")


def _row(scores: ModelScores, share: str) -> dict[str, Any]:
    start = time.perf_counter()
    plan = _planned(scores, share)
    seconds = time.perf_counter() - start
    solver = plan.solver
    gap = (solver.objective - solver.bound) / max(abs(solver.objective), 1e-12)
    return {
        "budget": f"{share} of the latency", "solving s": seconds, "status": solver.status, "gap": gap,
        "latency ms": plan.cost.latency_ms, "layers changed": len(plan.structures()),
    }  # fmt: skip


def _against_exhaustive_search() -> int:
    """Return in how many random problems the solver is worse than the best choice, or wrong about feasibility."""
    random = Random(0)
    wrong = 0
    for _ in range(_SMALL_PROBLEMS):
        layers = [_random_layer(f"layer{index}", random) for index in range(random.randint(1, 4))]
        limits = {"latency_ms": random.uniform(0.5, 8), "artifact_bytes": random.uniform(20, 250)}
        feasible = [
            sum(pick.predicted_loss for pick in picks)
            for picks in product(*(layer.candidates for layer in layers))
            if all(sum(getattr(pick.cost, entry) for pick in picks) <= limit for entry, limit in limits.items())
        ]
        try:
            picks, _ = solve(layers, _NOTHING, limits)
        except InfeasibleBudgetError:
            wrong += bool(feasible)
        else:
            wrong += not feasible or sum(pick.predicted_loss for pick in picks) > min(feasible) + 1e-6
    return wrong


def _random_layer(name: str, random: Random) -> LayerScores:
    candidates = tuple(
        Candidate(
            family="dense",
            structure=None,
            cost=_NOTHING.model_copy(
                update={"latency_ms": random.uniform(0.01, 3), "artifact_bytes": random.randint(1, 100)}
            ),
            predicted_loss=random.random(),
        )
        for _ in range(random.randint(1, 5))
    )
    return LayerScores(name=name, kind="Conv2d", weight_shape=(1,), considered=len(candidates), candidates=candidates)


if __name__ == "__main__":
    main()
