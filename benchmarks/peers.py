"""sekron-edge against its peers, at equal measured latency and after the same one epoch of distillation.

The networks of two example jobs in LiteRT, in float32 and in int8, one thread. Each peer's strength is turned until
its artifact takes the wanted share of the dense one's time; then all are distilled alike. Ours is reconstructed before,
as in jobs. Scores are those of the artifacts. What was reached is kept in the cache, so that a run that was interrupted
goes on; at the end all artifacts of a network are timed in turn. Needs a virtual environment with ``pip install
--constraint constraints.txt torch-pruning==1.6.1 aimet-torch==2.42.0`` (tried with torchvision 0.16.0, installed by
``--no-deps``); CIFAR images and weights are read from ``SEKRON_EDGE_DATA``.
``--quick`` distils on 2000 images of Fashion-MNIST, at one latency.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.utils.data import Subset

from benchmarks._peer_methods import Compress, spatial_svd_greedy, structured_pruning, tucker2_vbmf
from benchmarks._result import Claim, parser, publish
from sekron_edge import files
from sekron_edge.artifacts import Artifact, Precision, export
from sekron_edge.budget import Budget
from sekron_edge.cli import ConsoleProgress
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.measurement import Conditions, LocalDevice
from sekron_edge.nn import operations
from sekron_edge.pipeline import (
    calibration_inputs,
    example_inputs,
    load_config,
    load_task,
    plan,
    state_fingerprint,
    trained_model,
    training_inputs,
)
from sekron_edge.planner import decompose
from sekron_edge.reconstruction import ReconstructionConfig, reconstruct
from sekron_edge.task import Task
from sekron_edge.training import TrainConfig, calibration_batches, evaluate, finetune, reestimate_batch_norm
from sekron_edge.verification import score_artifact

_EXAMPLES = Path(__file__).parents[1] / "examples"
_NETWORKS = {"ResNet on Fashion-MNIST": "fashion_mnist", "ResNet-20 on CIFAR-10": "cifar_resnet"}
_SHARES = (0.5, 0.3)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
_OURS = "sekron-edge"
_PEERS: dict[str, Callable[[nn.Module, Task], Compress]] = {
    "Tucker-2, VBMF ranks": tucker2_vbmf,
    "spatial SVD, greedy ranks": spatial_svd_greedy,
    "structured pruning": structured_pruning,
}
_STEPS = 8
# A model that uses so much of the time it may take is taken.
_CLOSE = 0.97
_RUNS = 100
_QUICK_IMAGES = 2000
# Raised when the same networks would be compressed otherwise.
_METHODS = 2


class _Reached(BaseModel):
    """What a method came to at a share of the dense time; ``artifact`` is None where it cannot be that fast.

    ``share`` is what was measured when its strength was chosen: of the fastest model, where none is fast enough.
    """

    model_config = ConfigDict(extra="forbid")

    share: float
    macs: int = 0
    parameters: int = 0
    before: float = 0.0
    after: float = 0.0
    artifact: Artifact | None = None


@dataclass(frozen=True)
class _Network:
    name: str
    model: nn.Module
    task: Task
    config: TrainConfig
    precision: Precision
    work: Path

    @classmethod
    def load(cls, name: str, precision: Precision, images: int | None, work: Path) -> _Network:
        """Load or train the network of an example job."""
        config = load_config(_EXAMPLES / f"{_NETWORKS[name]}.toml")
        task = load_task(config)
        model = trained_model(config, task, ConsoleProgress())
        if images is not None and images < len(task.train):  # type: ignore[arg-type]
            order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
            task = replace(task, train=Subset(task.train, order[:images].tolist()))
        settings = config.finetune.model_copy(update={"epochs": 1, "seed": config.seed})
        return cls(name, model, task, settings, precision, work)

    @cached_property
    def dense(self) -> Artifact:
        """The artifact that all others are timed beside."""
        return self.exported(self.model, "dense")

    def exported(self, model: nn.Module, name: str = "model") -> Artifact:
        """Export to the runtime that the latencies are of, in place of what has this name."""
        inputs = calibration_inputs(self.task)
        return export(
            model.eval(), example_inputs(self.task), format="litert", precision=self.precision, calibration=(inputs,),
            out=self.work, name=name,
        )  # fmt: skip

    def share(self, model: nn.Module) -> float:
        """Return the time that a model's artifact takes, of the dense one's."""
        slow, fast = LocalDevice().measure_together([self.dense, self.exported(model)], Conditions(runs=_RUNS))
        return fast.median_ms / slow.median_ms

    def compressed(self, method: str, share: float, peers: dict[str, Compress]) -> tuple[nn.Module | None, float]:
        """Return what a method makes of the network for a share of its time, or None; and the share measured."""
        if method == _OURS:
            budget = Budget.model_validate({"latency_ms": f"{share}x"})
            try:
                chosen = plan(
                    self.model, example_inputs(self.task), "host",
                    task=self.task, budget=budget, runtime="litert", precision=self.precision, threads=1,
                    progress=ConsoleProgress(),
                )  # fmt: skip
            except InfeasibleBudgetError as error:
                dense = LocalDevice().measure(self.dense, Conditions(runs=_RUNS))
                return None, error.nearest[0]["latency_ms"] / dense.median_ms
            small = decompose(self.model, chosen, calibration=(calibration_inputs(self.task),))
            config = ReconstructionConfig()
            inputs = training_inputs(self.task, config.samples, self.config.seed)
            small, _ = reconstruct(small, self.model, chosen.structures(), inputs, config=config)
            return small, self.share(small)
        if method not in peers:
            peers[method] = _PEERS[method](self.model, self.task)
        return self._turned(peers[method], share)

    def _turned(self, compress: Compress, share: float) -> tuple[nn.Module | None, float]:
        """Bisect the strength of a method for the slowest model that takes no more than a share of the time."""
        low, high = 0.0, 1.0
        best: nn.Module | None = None
        reached, least = 0.0, 1.0
        for _ in range(_STEPS):
            strength = (low + high) / 2
            model = compress(strength)
            found = self.share(model)
            least = min(least, found)
            if found > share:
                low = strength
                continue
            high = strength
            if found > reached:
                best, reached = model, found
            if found >= _CLOSE * share:
                break
        return best, reached if best is not None else least


def main(arguments: Sequence[str] | None = None) -> None:
    """Compress, distil, time."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--networks", nargs="+", choices=_NETWORKS, default=list(_NETWORKS), metavar="NETWORK")
    options.add_argument("--precisions", nargs="+", choices=_PRECISIONS, default=list(_PRECISIONS))
    options.add_argument("--images", type=int, help="training samples in the epoch; by default all of them")
    given = options.parse_args(arguments)
    images = _QUICK_IMAGES if given.quick else given.images
    names = list(_NETWORKS)[:1] if given.quick else given.networks
    rows: list[dict[str, Any]] = []
    for name, precision in product(names, given.precisions):
        with tempfile.TemporaryDirectory() as folder:
            network = _Network.load(name, precision, images, Path(folder))
            rows += _rows(network, _SHARES[:1] if given.quick else _SHARES)
    publish(rows, list(_claims(rows)), given.json)


def _rows(network: _Network, shares: Sequence[float]) -> Iterator[dict[str, Any]]:
    peers: dict[str, Compress] = {}
    methods = (_OURS, *_PEERS)
    found = {(share, method): _reached(network, method, share, peers) for share in shares for method in methods}
    artifacts = [reached.artifact for reached in found.values() if reached.artifact is not None]
    slow, *measured = LocalDevice().measure_together([network.dense, *artifacts], Conditions(runs=_RUNS))
    times = {artifact.sha256: one.median_ms / slow.median_ms for artifact, one in zip(artifacts, measured, strict=True)}
    dense = score_artifact(network.dense, network.task)
    for (share, method), reached in found.items():
        kept = reached.artifact is not None
        yield {
            "network": network.name,
            "precision": network.precision,
            "of the dense latency": share,
            "method": method,
            "images": len(network.task.train),  # type: ignore[arg-type]
            "measured": times[reached.artifact.sha256] if reached.artifact is not None else reached.share,
            "reached": kept,
            "dense accuracy": dense,
            "before distillation": reached.before if kept else None,
            "after one epoch": reached.after if kept else None,
            "MACs": reached.macs if kept else None,
            "bytes": reached.artifact.size_bytes if reached.artifact is not None else None,
        }


def _reached(network: _Network, method: str, share: float, peers: dict[str, Compress]) -> _Reached:
    """Compress and distil, unless that is in the cache."""
    images = len(network.task.train)  # type: ignore[arg-type]
    settings = network.config.model_dump_json(exclude={"threads"})
    model = state_fingerprint(network.model)
    key = files.fingerprint(_METHODS, model, network.precision, settings, images, method, share)
    stored = files.cache_folder() / f"peer-{key}.json"
    progress = ConsoleProgress()
    where = f"{network.name}, {network.precision}, {share} of the latency: {method}"
    if not stored.is_file():
        with progress.busy(where):
            small, measured = network.compressed(method, share, peers)
            reached = _Reached(share=measured) if small is None else _distilled(network, small, measured, stored)
        files.write_text(stored, reached.model_dump_json(indent=2) + "\n")
    reached = _Reached.model_validate_json(stored.read_bytes())
    progress.say(f"{where}: {reached.share:.3f}, {reached.after:.4f}")
    return reached


def _distilled(network: _Network, model: nn.Module, share: float, stored: Path) -> _Reached:
    task = network.task
    start = reestimate_batch_norm(model, calibration_batches(task))
    small = finetune(start, network.model, task, config=network.config, progress=False)
    artifact = network.exported(small)
    path = stored.with_suffix(artifact.path.suffix)
    shutil.copyfile(artifact.path, path)
    computed = (
        one.macs for operation in operations(small, example_inputs(task)).operations for one in operation.primitives
    )
    return _Reached(
        share=share,
        macs=sum(computed),
        parameters=sum(parameter.numel() for parameter in small.parameters()),
        before=evaluate(start, task),
        after=score_artifact(artifact, task),
        artifact=artifact.model_copy(update={"path": path}),
    )


def _claims(rows: Sequence[dict[str, Any]]) -> Iterator[Claim]:
    points: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        where = f"{row['network']}, {row['precision']}, {row['of the dense latency']} of the latency"
        points.setdefault(where, {})[row["method"]] = row
    for where, point in points.items():
        best = max(
            (row["after one epoch"] for name, row in point.items() if row["reached"] and name != _OURS), default=0.0
        )
        ours = point[_OURS]["after one epoch"] or 0.0
        yield Claim(name=f"{where}: ours above the best peer", value=ours - best, relation=">=", limit=0.0)


if __name__ == "__main__":
    main()
