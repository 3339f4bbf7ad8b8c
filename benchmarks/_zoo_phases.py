"""The phases of a network of the zoo: traced and counted, exported and verified, planned and made smaller."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sekron_edge.artifacts import Precision, export
from sekron_edge.budget import Budget, Limit
from sekron_edge.latency import cached_calibration
from sekron_edge.nn import expose_layers, operations, supported_layers
from sekron_edge.planner import Calibration, ModelScores, Pricing, decompose, score_for_all
from sekron_edge.training import reestimate_batch_norm
from sekron_edge.verification import TOLERANCES, verify

PLANNED: tuple[Precision, ...] = ("fp32", "int8")
RUNTIME = "litert"
# Where half of the latency cannot be kept, a plan takes this much of the least.
_BESIDE_LEAST = 1.02


@dataclass(frozen=True)
class Subject:
    """A network, and the images that it is calibrated and verified on."""

    model: nn.Module
    calibration: Tensor
    heldout: Tensor

    @cached_property
    def exposed(self) -> nn.Module:
        """The network with its layers exposed."""
        return expose_layers(self.model, self.calibration[:1])

    @cached_property
    def scores(self) -> Mapping[Precision, ModelScores]:
        """The candidates of every layer, priced for LiteRT on this machine, with errors on the calibration images."""
        prices = [Pricing(cached_calibration(RUNTIME, precision=precision), precision) for precision in PLANNED]
        calibration = Calibration(self.exposed, self.calibration)
        scored = score_for_all(self.exposed, self.calibration[:1], prices, calibration=calibration)
        return dict(zip(PLANNED, scored, strict=True))


def _traced(subject: Subject) -> dict[str, float]:
    model, exposed, example = subject.model, subject.exposed, subject.calibration[:1]
    graph = operations(exposed, example)
    supported, _ = supported_layers(exposed)
    macs = sum(one.macs for operation in graph.operations for one in operation.primitives)
    inside = [operation for operation in graph.operations if operation.layer in supported]
    covered = sum(one.macs for operation in inside for one in operation.primitives)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs,
        "flop_counter_macs": counter.get_total_flops() // 2,
        "covered": covered / max(macs, 1),
    }


def _exported(subject: Subject, *, format: str, precision: Precision) -> dict[str, float]:
    return _verified(subject, subject.model, format, precision)


def _verified(subject: Subject, model: nn.Module, format: str, precision: Precision) -> dict[str, float]:
    """Export and verify; random weights decide nothing, so outputs are held against their tolerance, not decisions."""
    calibration = subject.calibration
    tolerance = TOLERANCES[precision].of_outputs()
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(
            model, calibration[:1], format=format, precision=precision, out=folder, calibration=calibration
        )
        check = verify(artifact, model, subject.heldout, tolerance=tolerance, calibration=calibration)
    return {"snr_db": check.real.snr_db, "bytes": artifact.size_bytes}


def _scored(subject: Subject) -> dict[str, float]:
    layers = subject.scores["fp32"].layers
    least = {f"least {precision}": _least(scores) for precision, scores in subject.scores.items()}
    return {"layers": len(layers), "candidates": sum(layer.considered for layer in layers), **least}


def _planned(subject: Subject, *, precision: Precision) -> dict[str, float]:
    """Plan for half of the dense latency, as predicted, or the least if that is more; decompose, export and verify."""
    scores = subject.scores[precision]
    share = min(1.0, max(0.5, _BESIDE_LEAST * _least(scores)))
    budget = Budget(latency_ms=Limit(value=share, relative=True))
    plan = scores.plan(budget, profile="host", runtime=RUNTIME)
    smaller = decompose(subject.exposed, plan, calibration=subject.calibration)
    reestimate_batch_norm(smaller, [subject.calibration])
    shares = {"latency": plan.cost.latency_ms / plan.dense.latency_ms, "MACs": plan.cost.macs / plan.dense.macs}
    return {**shares, **_verified(subject, smaller, RUNTIME, precision)}


def _least(scores: ModelScores) -> float:
    return scores.least("latency_ms") / scores.dense.latency_ms


TRACE = "trace"
SCORES = "scores"
TARGETS: Mapping[str, tuple[str, Precision]] = {
    "LiteRT fp32": ("litert", "fp32"), "ExecuTorch fp32": ("executorch", "fp32"), "Core ML fp32": ("coreml", "fp32"),
    "LiteRT int8": ("litert", "int8"), "ExecuTorch int8": ("executorch", "int8"),
}  # fmt: skip
# Those of plans ask for a machine that is calibrated.
SMALLER: Mapping[str, Precision] = {f"LiteRT {precision} planned": precision for precision in PLANNED}
DENSE = (TRACE, *TARGETS)
PLANS = (SCORES, *SMALLER)
PHASES: Mapping[str, Callable[[Subject], dict[str, float]]] = {
    TRACE: _traced,
    **{name: partial(_exported, format=kind, precision=precision) for name, (kind, precision) in TARGETS.items()},
    SCORES: _scored,
    **{name: partial(_planned, precision=precision) for name, precision in SMALLER.items()},
}
