"""Each family of structures alone, and all together: scores at equal parameters and at equal MACs.

Before distillation and after one epoch of it, with the settings of the example jobs (ResNet-20 in mixed precision where
the processor has instructions for bfloat16); one planner, one set of calibration data. No latency is involved: which
family is faster is the runtime's question. What a plan reached is kept in the cache, so that a run that was interrupted
goes on; several may run at once, each on points of its own. The CIFAR images and weights are read from
``SEKRON_EDGE_DATA``. ``--quick`` runs the super-resolution network alone.

What counts as no difference is measured: the standard error of the difference of two plans on the same held-out images,
by blocks of them; after distillation also what another seed of it changes, by distilling the union's plans again. The
best of eight families is the luckiest of them too: noise is as many standard errors as one of eight differences exceeds
by chance in 5 % of cases (2.73, after Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from math import sqrt
from pathlib import Path
from statistics import NormalDist, fmean, stdev, variance
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from benchmarks._result import Claim, parser, publish
from sekron_edge import files
from sekron_edge.budget import Budget
from sekron_edge.data import collate
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.nn import evaluation_mode, rebuilt_kernels
from sekron_edge.pipeline import (
    LogProgress,
    calibration_inputs,
    evaluator_for,
    example_inputs,
    load_config,
    load_task,
    state_fingerprint,
    trained_model,
)
from sekron_edge.planner import Calibration, ModelScores, Plan, PlanEvaluator, decompose, measure_sensitivity, score
from sekron_edge.primitives import Primitive
from sekron_edge.task import Task
from sekron_edge.training import TrainConfig, calibration_batches, evaluate, finetune, reestimate_batch_norm

_EXAMPLES = Path(__file__).parents[1] / "examples"
_QUICK_IN_BF16 = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
# What mixed precision is faster with; elsewhere it is slower.
QUICK_PRECISION = "bf16" if _QUICK_IN_BF16 else "fp32"
# The job, and the precision that distillation computes in: differences between images are finer than bfloat16.
_NETWORKS: dict[str, tuple[str, dict[str, str]]] = {
    "ResNet-20": ("cifar_resnet", {"precision": QUICK_PRECISION}),
    "EDSR x2": ("super_resolution", {"precision": "fp32"}),
}
# Weight and spatial SVDs are Kronecker products of two factors too; the planner lists them under their own names.
_FAMILIES: dict[str, tuple[str, ...]] = {
    "weight SVD": ("weight-svd",),
    "spatial SVD": ("spatial-svd",),
    "Tucker-2": ("tucker2",),
    "CP": ("cp",),
    "TT": ("tensor-train",),
    "TR": ("tensor-ring",),
    "SeKron S=2": ("weight-svd", "spatial-svd", "sekron-2"),
    "SeKron S=3": ("sekron-3",),
}
_UNION = "union"
_POINTS = {
    f"{factor}x fewer {what}": Budget.model_validate({entry: f"{1 / factor}x"})
    for entry, what in (("artifact_bytes", "parameters"), ("macs", "MACs"))
    for factor in (2, 4, 8)
}
_BLOCKS = 50
_SEEDS = 2
_STANDARD_ERRORS = NormalDist().inv_cdf(1 - 0.05 / 2 / len(_FAMILIES))


_When = Literal["before", "after"]
_WHEN: tuple[_When, ...] = ("before", "after")


class _Reached(BaseModel):
    """Held-out scores of a plan before and after distillation: of all samples, and block by block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: float
    after: float
    blocks_before: tuple[float, ...]
    blocks_after: tuple[float, ...]

    def error_against(self, other: _Reached, when: _When) -> float:
        """Return the standard error of the difference of two plans, for these held-out samples."""
        pairs = zip(self._blocks(when), other._blocks(when), strict=True)
        differences = [one - another for one, another in pairs]
        return stdev(differences) / sqrt(len(differences))

    def _blocks(self, when: _When) -> tuple[float, ...]:
        return self.blocks_before if when == "before" else self.blocks_after


class NoLatency:
    """Neither parameters nor MACs ask how long anything takes."""

    source = "not asked"

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return nothing."""
        del primitives
        return 0.0


class _Remembering(nn.Module):
    """A teacher that answers what it was asked before from memory: with one seed, all students see the same batches."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.answers: dict[bytes, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Remembering:
        """Copies remember together."""
        del memo
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the teacher's outputs."""
        key = sha256(inputs.contiguous().numpy().tobytes()).digest()
        if key not in self.answers:
            self.answers[key] = self.teacher(inputs)
        return self.answers[key]


@dataclass(frozen=True)
class _Network:
    name: str
    model: nn.Module
    teacher: _Remembering
    task: Task
    calibration: Tensor
    config: TrainConfig
    families: dict[str, ModelScores]
    evaluator: PlanEvaluator

    @classmethod
    def load(cls, name: str, images: int | None) -> _Network:
        """Load or train the network of an example job, and score it with each family."""
        job, precision = _NETWORKS[name]
        config = load_config(_EXAMPLES / f"{job}.toml")
        task = load_task(config)
        model = trained_model(config, task, LogProgress())
        if images is not None and images < len(task.train):  # type: ignore[arg-type]
            order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
            task = replace(task, train=Subset(task.train, order[:images].tolist()))
        calibration = Calibration(model, (calibration_inputs(task),))
        alone = {
            family: score(model, example_inputs(task), NoLatency(), calibration=calibration.inputs, families=members)
            for family, members in _FAMILIES.items()
        }

        union = measure_sensitivity(
            _joined(list(alone.values())),
            calibration,
            divergence=task.distillation,
        )
        families = {family: union.only(members) for family, members in _FAMILIES.items()} | {_UNION: union}
        settings = config.finetune.model_copy(update={"epochs": 1, "seed": config.seed, **precision})
        return cls(
            name,
            model,
            _Remembering(deepcopy(model).eval()),
            task,
            calibration.inputs[0],
            settings,
            families,
            evaluator_for(calibration, task),
        )


def _joined(scores: Sequence[ModelScores]) -> ModelScores:
    """Offer what all of them offer; dense once."""
    layers = []
    for same in zip(*(one.layers for one in scores), strict=True):
        offered = [candidate for layer in same for candidate in layer.candidates[1:]]
        layers.append(same[0].model_copy(update={"candidates": (same[0].candidates[0], *offered)}))
    return scores[0].model_copy(update={"layers": tuple(layers)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not in the cache, print and write down."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--networks", nargs="+", choices=_NETWORKS, default=list(_NETWORKS))
    options.add_argument("--images", type=int, help="training samples in the epoch; by default all of them")
    options.add_argument("--points", nargs="+", choices=_POINTS, default=list(_POINTS), metavar="POINT")
    options.add_argument("--union", action="store_true", help="distil the union's plans alone")
    given = options.parse_args(arguments)
    networks = ["EDSR x2"] if given.quick else given.networks
    shown = (_UNION,) if given.union else (*_FAMILIES, _UNION)
    rows = [row for name in networks for row in _rows(_Network.load(name, given.images), given.points, shown)]
    publish(rows, [claim for row in rows for claim in _claims(row)], given.json)


def _rows(network: _Network, points: Sequence[str], shown: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield two rows a point: the score of every family without distillation, and after it."""
    dense = evaluate(network.model, network.task)
    found: dict[str, dict[str, _Reached]] = {}
    spreads: list[float] = []
    for point in points:
        plans = _plans(network, point, shown)
        found[point] = {family: _reached(network, family, point, plan) for family, plan in plans.items()}
        if _UNION in plans:
            seeds = range(network.config.seed, network.config.seed + _SEEDS)
            again = [_reached(network, f"{_UNION}, seed {seed}", point, plans[_UNION], seed) for seed in seeds]
            spreads.append(variance(one.after for one in again))
    for point, reached in found.items():
        for when in _WHEN:
            scores = {family: getattr(one, when) for family, one in reached.items()}
            row = {
                "network": network.name,
                "at": point,
                "distillation": when,
                "metric": network.task.metric_name,
                "dense": dense,
                **{family: scores.get(family) for family in shown},
            }
            if _UNION in scores and len(shown) > 1:
                best = max(_FAMILIES, key=lambda family: scores.get(family, 0.0))
                seeds_vary = 2 * fmean(spreads) if when == "after" else 0.0
                error = (reached[best].error_against(reached[_UNION], when) ** 2 + seeds_vary) ** 0.5
                row["noise"] = _STANDARD_ERRORS * error
            yield row


def _plans(network: _Network, point: str, shown: Sequence[str]) -> dict[str, Plan]:
    """Return the plan of each family that can be small enough, bettered by exchanges as in jobs.

    The union's is the one that diverges least, of all that were compared.
    """
    found = {}
    for family, scores in network.families.items():
        with suppress(InfeasibleBudgetError):
            found[family] = scores.plan(_POINTS[point], profile="none", runtime="none")
    if _UNION in found:
        found[_UNION] = network.evaluator.best(list(found.values()))
    better = {}
    for family in [family for family in shown if family in found]:
        (judged,) = network.evaluator.judged([found[family]])
        better[family], _ = network.evaluator.exchanged(network.families[family], judged)
    if _UNION in better:
        better[_UNION] = network.evaluator.best([better[_UNION], *better.values()])
    return better


def _reached(network: _Network, family: str, point: str, plan: Plan, seed: int | None = None) -> _Reached:
    """Return the held-out scores of a plan before and after one epoch."""
    config = network.config if seed is None else network.config.model_copy(update={"seed": seed})
    stored = files.cache_folder() / f"family-{_key(network, plan, config)}.json"
    if not stored.is_file():
        start = decompose(network.model, plan, calibration=(network.calibration,))
        start = reestimate_batch_norm(start, calibration_batches(network.task))
        small = finetune(start, network.teacher, network.task, config=config, progress=False)
        before, blocks_before = _heldout_scores(start, network.task)
        after, blocks_after = _heldout_scores(small, network.task)
        reached = _Reached(before=before, after=after, blocks_before=blocks_before, blocks_after=blocks_after)
        files.write_text(stored, reached.model_dump_json())
    reached = _Reached.model_validate_json(stored.read_bytes())
    scores = f"{reached.before:.4f} before, {reached.after:.4f} after"
    Console(stderr=True).print(f"{network.name}, {point}, {family}: {scores}", markup=False, highlight=False)
    return reached


def _heldout_scores(model: nn.Module, task: Task) -> tuple[float, tuple[float, ...]]:
    """Return the score on all held-out samples, and on each of so many equal parts of them; the model runs once."""
    fast: nn.Module = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = DataLoader(task.heldout, 256, collate_fn=collate)
    with torch.no_grad(), evaluation_mode(fast), rebuilt_kernels(fast):
        batches = [(fast(x.contiguous(memory_format=torch.channels_last)), targets) for x, targets in loader]
    outputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def score_of(part: Tensor) -> float:
        return evaluate(nn.Identity(), replace(task, heldout=TensorDataset(outputs[part], targets[part])))

    samples = torch.arange(len(outputs))
    return score_of(samples), tuple(score_of(part) for part in samples.chunk(_BLOCKS))


def _key(network: _Network, plan: Plan, config: TrainConfig) -> str:
    structures = {name: structure.model_dump_json() for name, structure in plan.structures().items()}
    return files.fingerprint(
        state_fingerprint(network.model),
        network.calibration.numpy().tobytes(),
        config.model_dump_json(exclude={"threads"}),
        _BLOCKS,
        len(network.task.train),  # type: ignore[arg-type]
        sorted(structures.items()),
    )


def _claims(row: dict[str, Any]) -> Iterator[Claim]:
    alone = [row[family] for family in _FAMILIES if row.get(family) is not None]
    if alone and row[_UNION] is not None:
        name = f"{row['network']}, {row['at']}, {row['distillation']} distillation: best family alone above the union"
        yield Claim(name=name, value=max(alone) - row[_UNION], relation="<=", limit=row["noise"])


if __name__ == "__main__":
    main()
