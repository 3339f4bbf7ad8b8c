"""Holding models against budgets: what an artifact shows, before fine-tuning and after, and which promises it keeps."""

from __future__ import annotations

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import Budget, Evidence, Figures, Finding, resources
from sekron_edge.bundle._manifest import BudgetResult, Delivery, Score
from sekron_edge.errors import ConfigError
from sekron_edge.measurement import Measurement
from sekron_edge.planner import Plan


def trial_evidence(
    dense: Artifact, artifact: Artifact, dense_measured: Measurement | None, measured: Measurement | None
) -> Evidence:
    """Return what the artifact of a plan shows beside the dense one; nothing of it is the plan's own prediction."""
    return Evidence(
        found=Figures(artifact.size_bytes, *_measured(measured), arena_bytes=_arena_bytes(artifact)),
        dense=Figures(dense.size_bytes, *_measured(dense_measured), arena_bytes=_arena_bytes(dense)),
    )


def _arena_bytes(artifact: Artifact) -> int | None:
    return None if artifact.arena is None else artifact.arena.size_bytes


def delivery_evidence(
    delivery: Delivery, plan: Plan, score: Score, *, device: str, measured_at: str | None
) -> Evidence:
    """Return what is known of a delivered artifact beside the dense one.

    Args:
        delivery: Of the budgeted runtime and precision.
        plan: What both were predicted to cost.
        score: Of the PyTorch models; the artifact's own counts where all held-out data were run.
        device: The target.
        measured_at: Where the delivery was measured, in words; None where that was not on the target.
    """
    artifact, check, arena = delivery.artifact, delivery.check, delivery.artifact.arena
    metric = Finding(score.delivered, score.dense, "held-out data, PyTorch model")
    if delivery.score is not None and delivery.scored_samples is None:
        metric = Finding(delivery.score, score.dense, "held-out data, the artifact itself")
    before = after = None
    if measured_at is not None:
        before, after = delivery.dense_measured, delivery.measured
    arena_bytes, tested_with = None, ""
    if arena is not None and check is not None:
        arena_bytes = arena.size_bytes
        tested_with = f"{check.runtime} on this machine, {arena.margin:.0%} margin"
    return Evidence(
        found=Figures(
            artifact.size_bytes, *_measured(after), arena_bytes=arena_bytes, compiled=artifact.npu, predicted=plan.cost
        ),
        dense=Figures(
            delivery.dense_bytes,
            *_measured(before),
            arena_bytes=delivery.dense_arena_bytes,
            compiled=delivery.dense_npu,
            predicted=plan.dense,
        ),
        device=device,
        place=measured_at or "",
        spread="" if delivery.pair is None else delivery.pair.said(plan.budget.latency_ms),
        tested_with=tested_with,
        metric=metric,
        higher_is_better=score.higher_is_better,
    )


def _measured(measured: Measurement | None) -> tuple[float | None, int | None]:
    return (None, None) if measured is None else (measured.median_ms, measured.peak_memory_bytes)


def findings(evidence: Evidence) -> dict[str, Finding]:
    """Return the finding of each resource, by name; resources without a finding are left out."""
    everything = {name: resource.finding(evidence) for name, resource in resources().items()}
    return {name: finding for name, finding in everything.items() if finding is not None}


def shares(budget: Budget, evidence: Evidence) -> dict[str, float]:
    """Return the used share of each limit, found over allowed, for resources with a finding."""
    known = findings(evidence)
    return {
        resource.name: finding.found / budget.allowed(resource.name, finding.dense)
        for resource in budget.limited()
        if (finding := known.get(resource.name)) is not None
    }


def check_promises(budget: Budget, evidence: Evidence) -> tuple[BudgetResult, ...]:
    """Hold the findings against every entry of a budget.

    Raises:
        ConfigError: If nobody handles an entry, or nothing was found of it.
    """
    known = findings(evidence)
    results = []
    for resource in budget.limited():
        if resource.name not in known:
            raise ConfigError(f"{resource.name} is in the budget, and nothing was found of it; leave it out")
        finding = known[resource.name]
        allowed = budget.allowed(resource.name, finding.dense)
        results.append(
            BudgetResult(
                entry=resource.name,
                limit=allowed,
                found=finding.found,
                how=finding.how,
                kept=finding.found <= allowed,
            )
        )
    return tuple(results)
