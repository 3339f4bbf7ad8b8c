"""Whole networks that took no part in the calibration: predicted latency against measured, dense and compressed.

Classic architectures at two resolutions, dense and with structures drawn at random, and plans of one network: are they
ordered alike? Every runtime is calibrated first. Weights are random: they change no time. All networks are exported
before any is timed, several at once, then timed one after another, each in a process of its own and in turn with one
and the same network: what slows a machine down for a minute slows both. Their ratio times the fastest that this one
ever was, the median of three rounds, is the time of a network. ``--quick`` takes two small networks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from benchmarks._networks import NETWORKS, settled
from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Artifact, Precision, calibratable, export
from sekron_edge.cli import ConsoleProgress
from sekron_edge.latency import LatencyModel, calibrate
from sekron_edge.measurement import Conditions, LocalDevice, MeasurementStore
from sekron_edge.nn import factorize, layer_primitives, operations
from sekron_edge.planner import enumerate_structures
from sekron_edge.primitives import Primitive
from sekron_edge.structure import Factor, Shape, Structure

_QUICK = ("VGG-like", "DenseNet-like")
# Families of structures, and how many layers get one.
_COMPRESSED = {
    "SeKron S=2": ("sekron-2",),
    "CP": ("cp",),
    "all families": ("weight-svd", "spatial-svd", "tucker2", "sekron-2"),
}
_SHARE = 0.5
_ORDERED = "VGG-like"
_PLANS = 24
_MEDIAN, _P90, _RANK, _CALIBRATION_S = 0.10, 0.20, 0.95, 300.0
# Of the dense layer's; structures with more are in nobody's plan. Counted for a small image.
_MOST_MACS = 0.6
_IMAGE, _IMAGE_AXES = 14, 4
_CALIBRATION_IMAGES = 4
_RUNS = 30
_ROUNDS = 3


@dataclass(frozen=True)
class _Network:
    """What is exported: an architecture, dense or with structures of some families drawn at random."""

    name: str
    kind: str
    architecture: str
    size: int
    families: tuple[str, ...] = ()

    def made(self) -> nn.Module:
        """Make the model: the same structures wherever it is made, other weights."""
        model = NETWORKS[self.architecture][0]()
        return settled(_drawn(model, self.families, Random(self.name)) if self.families else model)


@dataclass(frozen=True)
class _Case:
    network: _Network
    primitives: tuple[Primitive, ...]
    artifact: Artifact


@dataclass(frozen=True)
class _Runtime:
    name: str
    precision: Precision
    model: LatencyModel
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate, predict, measure, compare."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--runtimes", nargs="+", default=["litert", "executorch"])
    options.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    given = options.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    progress = ConsoleProgress()
    for name in given.runtimes:
        for precision in given.precisions:
            if not calibratable(name, precision):
                progress.say(f"{name} {precision} is left out: it cannot be calibrated")
                continue
            with progress.busy(f"calibrating {name} {precision}"):
                runtime = _calibrated(name, precision)
            found = _compared(runtime, list(_networks(_QUICK if given.quick else tuple(NETWORKS))), progress)
            rows += found
            claims += _claims(runtime, found)
    publish(rows, claims, given.json)


def _calibrated(name: str, precision: Precision) -> _Runtime:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        model = calibrate(name, store=MeasurementStore(Path(folder) / "timings.sqlite"), precision=precision)
    return _Runtime(name, precision, model, time.perf_counter() - start)


def _compared(runtime: _Runtime, networks: Sequence[_Network], progress: ConsoleProgress) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for case in _exported(runtime, networks, Path(folder)):
            progress.say(f"exported to {runtime.name} {runtime.precision}: {case.network.name}")
            cases.append(case)
        predicted = [runtime.model.latency_ms(case.primitives) for case in cases]
        anchor = next(case.artifact for case in cases if case.network.architecture == _ORDERED)
        rounds: list[list[tuple[float, float]]] = []
        for number in range(1, 1 + _ROUNDS):
            rounds.append([])
            for case, expected in zip(cases, predicted, strict=True):
                beside, own = LocalDevice().measure_together([anchor, case.artifact], Conditions(runs=_RUNS))
                rounds[-1].append((beside.median_ms, own.median_ms))
                said = f"predicted {expected:.4g} ms, measured {own.median_ms:.4g} ms"
                progress.say(f"round {number} of {_ROUNDS}, {case.network.name}: {said}")
    # What else runs on the machine only adds to a time.
    fastest = min(beside for timed in rounds for beside, _ in timed)
    return [
        _row(runtime, case.network, expected, [fastest * own / beside for beside, own in seen])
        for case, expected, seen in zip(cases, predicted, zip(*rounds, strict=True), strict=True)
    ]


def _networks(architectures: Sequence[str]) -> Iterator[_Network]:
    for name in architectures:
        sizes = NETWORKS[name][1]
        for size in sizes:
            yield _Network(f"{name} {size}x{size}", "dense", name, size)
        for kind, families in _COMPRESSED.items():
            yield _Network(f"{name}, {kind}", "compressed", name, sizes[-1], families)
    for plan in range(_PLANS):
        size, families = NETWORKS[_ORDERED][1][0], _COMPRESSED["all families"]
        yield _Network(f"{_ORDERED}, plan {plan}", "plan", _ORDERED, size, families)


def _exported(runtime: _Runtime, networks: Sequence[_Network], folder: Path) -> Iterator[_Case]:
    """Export each in a process that has a core of its own: exporters compute little with more."""
    work = partial(_case, runtime.name, runtime.precision, folder)
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=partial(torch.set_num_threads, 1)) as pool:
        yield from pool.map(work, networks)


def _case(runtime: str, precision: Precision, folder: Path, network: _Network) -> _Case:
    model, image = network.made(), (3, network.size, network.size)
    x, calibration = torch.randn(1, *image), torch.randn(_CALIBRATION_IMAGES, *image)
    primitives = tuple(p for operation in operations(model, (x,)).operations for p in operation.primitives)
    artifact: Artifact = export(
        model, (x,), format=runtime, precision=precision, out=folder / network.name, calibration=(calibration,)
    )
    return _Case(network, primitives, artifact)


def _row(runtime: _Runtime, network: _Network, predicted_ms: float, rounds: Sequence[float]) -> dict[str, Any]:
    found = median(rounds)
    return {
        "runtime": runtime.name, "precision": runtime.precision, "network": network.name, "kind": network.kind,
        "predicted ms": predicted_ms, "ms": found, "ratio": predicted_ms / found,
        "spread of rounds": max(rounds) / min(rounds),
    }  # fmt: skip


def _drawn(model: nn.Module, families: Sequence[str], random: Random) -> nn.Module:
    """Give layers structures drawn at random, of those that have fewer MACs: no planner would take others."""

    def structure_for(name: str, layer: nn.Module, shape: Shape) -> Structure | None:
        del name
        if random.random() > _SHARE or getattr(layer, "groups", 1) > 1:
            return None
        image = len(shape) == _IMAGE_AXES
        in_shape = (1, shape[1], _IMAGE, _IMAGE) if image else (1, shape[1])
        dense = Structure(factors=(Factor(shape=shape),), ranks={})
        most = _MOST_MACS * _macs(dense, layer, in_shape)
        offered = [structure for _, structure in enumerate_structures(shape, families)]
        fewer = [structure for structure in offered if _macs(structure, layer, in_shape) <= most]
        return random.choice(fewer) if fewer else None

    return factorize(model.eval(), structure_for)


def _macs(structure: Structure, layer: nn.Module, in_shape: Shape) -> int:
    return sum(primitive.macs for primitive in layer_primitives(structure, layer, in_shape))


def _claims(runtime: _Runtime, rows: Sequence[dict[str, Any]]) -> list[Claim]:
    errors = [abs(row["ratio"] - 1) for row in rows if row["kind"] != "plan"]
    plans = [row for row in rows if row["kind"] == "plan"]
    rank = float(spearmanr([row["predicted ms"] for row in plans], [row["ms"] for row in plans]).statistic)
    name = f"{runtime.name} {runtime.precision}"
    return [
        Claim(name=f"{name}: median error", value=float(np.median(errors)), relation="<=", limit=_MEDIAN),
        Claim(name=f"{name}: error of nine in ten", value=float(np.quantile(errors, 0.9)), relation="<=", limit=_P90),
        Claim(name=f"{name}: rank correlation of plans", value=rank, relation=">=", limit=_RANK),
        Claim(name=f"{name}: seconds of calibration", value=runtime.seconds, relation="<=", limit=_CALIBRATION_S),
    ]


if __name__ == "__main__":
    main()
