"""From the finished model to the deliveries of a bundle: artifacts, verified, and measured where that is possible."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from sekron_edge import pytrees
from sekron_edge.artifacts import Artifact, Precision, TensorSpec, export, get_exporter, rounds
from sekron_edge.budget import Evidence, Limit
from sekron_edge.bundle import (
    Counts,
    Delivery,
    Golden,
    Manifest,
    PixelNormalization,
    check_promises,
    delivery_evidence,
)
from sekron_edge.devices import require_fit
from sekron_edge.errors import DeviceError, NotRunnableError
from sekron_edge.measurement import MeasuredPair, measure_pair
from sekron_edge.nn import outputs_for
from sekron_edge.pipeline._finish import Finished
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._samples import heldout_samples
from sekron_edge.pipeline._target import Target
from sekron_edge.verification import Check, score_artifact, verify

_VERIFIED_SAMPLES = 512
_GOLDEN_SAMPLES = 8
# Without a fast runtime: interpreters for microcontrollers and reference evaluators are slow.
_SCORED_ELSEWHERE = 1000


def deliver(job: Job, finished: Finished, *, work: Path, progress: Progress) -> tuple[Delivery, ...]:
    """Export both models in every format and precision; verify the new artifact, and measure it beside the dense one.

    Args:
        job: The job, with the formats to deliver and the device.
        finished: Its finished model.
        work: Folder for the artifacts.
        progress: Receives the reports.

    Raises:
        ExportError: If a conversion fails.
        VerificationError: If an artifact does not compute what the model computes; names the first layer that differs.
        DeviceError: If a measurement fails.
    """
    verified_on = heldout_samples(job.task, _VERIFIED_SAMPLES)
    return tuple(
        _delivered(job, finished, exporter.name, precision, verified_on, work, progress)
        for exporter in map(get_exporter, job.target.formats)
        for precision in job.target.precisions
        if precision in exporter.precisions
    )


def _delivered(
    job: Job,
    finished: Finished,
    format: str,
    precision: Precision,
    verified_on: tuple[pytrees.Inputs, Any],
    work: Path,
    progress: Progress,
) -> Delivery:
    kept = finished.keep_float if rounds(precision) else ()

    def exported(model: nn.Module, name: str) -> Artifact:
        return export(
            model, job.example_inputs, format=format, precision=precision, out=work, name=name,
            calibration=job.calibration_inputs, keep_float=kept,
        )  # fmt: skip

    with progress.busy(f"exporting and verifying {format} {precision}"):
        artifact = exported(finished.model, job.name)
        check, not_run = _checked(artifact, finished.model, job, verified_on)
    require_fit(job.target.profile, artifact)
    progress.say(_verdict(artifact, check, not_run))
    with progress.busy(f"exporting the dense model to {format} {precision}"):
        dense = exported(job.model, "dense")
    measurable = check is not None and check.measurable
    few = measurable or len(job.task.heldout) <= _SCORED_ELSEWHERE  # type: ignore[arg-type]
    samples = None if few else _SCORED_ELSEWHERE
    pair = score = dense_score = None
    limit = job.budget.latency_ms if (format, precision) == (job.target.runtime, job.target.precision) else None
    if measurable or (check is not None and precision == "int8"):
        score, dense_score = _scored(dense, artifact, samples, job, finished, progress)
    if measurable:
        pair = _measured(dense, artifact, job.target, limit, progress)
    before, after = (None, None) if pair is None else pair.shown(limit)
    return Delivery(
        artifact=artifact,
        check=check,
        not_run=not_run,
        measured=after,
        dense_bytes=dense.size_bytes,
        dense_arena_bytes=None if dense.arena is None else dense.arena.size_bytes,
        dense_npu=dense.npu,
        dense_measured=before,
        pair=None if pair is None else pair.times,
        score=score,
        dense_score=dense_score,
        scored_samples=samples,
        snippet="",
    )


def _checked(
    artifact: Artifact, model: nn.Module, job: Job, verified_on: tuple[pytrees.Inputs, Any]
) -> tuple[Check | None, str]:
    """Verify an artifact on held-out samples; if nothing here runs it, return the reason."""
    inputs, targets = verified_on
    try:
        check = verify(artifact, model, inputs, task=job.task, targets=targets, calibration=job.calibration_inputs)
        return check, ""
    except NotRunnableError as error:
        return None, str(error)


def _scored(
    dense: Artifact, artifact: Artifact, samples: int | None, job: Job, finished: Finished, progress: Progress
) -> tuple[float, float]:
    """Score an artifact and the dense one on ``samples`` held-out samples, or on all."""
    name = artifact.path.name
    with progress.busy(f"scoring {name} and the dense model's on held-out data"):
        like = outputs_for(finished.model, job.example_inputs)
        score, dense_score = (score_artifact(one, job.task, like=like, samples=samples) for one in (artifact, dense))
    shown = finished.score.shown
    progress.say(f"{name}: held-out {job.task.metric_name} {shown(score)}, dense {shown(dense_score)}")
    return score, dense_score


def _measured(
    dense: Artifact, artifact: Artifact, target: Target, limit: Limit | None, progress: Progress
) -> MeasuredPair | None:
    """Measure a pair until it is decided whether it keeps the limit, if it has one.

    On a remote device only the budgeted artifact must be measurable.
    """
    name, where = artifact.path.name, f" on {target.place}" if target.place.is_remote else ""
    try:
        with progress.busy(f"measuring {name} beside the dense model{where}"):
            pair = measure_pair(target.place.open(), dense, artifact, target.conditions, limit=limit)
    except DeviceError as error:
        if not target.place.is_remote or (artifact.format, artifact.precision) == (target.runtime, target.precision):
            raise
        progress.say(f"{name} was not measured: {error}")
        return None
    before, after = pair.shown(limit)
    steady = "" if before.stable and after.stable else " (too noisy to quote)"
    spread = pair.times.said(limit)
    progress.say(f"{name} measured{where}: {after.median_ms:.4g} ms, dense {before.median_ms:.4g} ms{steady}; {spread}")
    return pair


def _verdict(artifact: Artifact, check: Check | None, not_run: str) -> str:
    """Return an artifact's verdict in words: the runtime and how close it is, or why nothing ran it."""
    taken = "" if artifact.delegated is None else f"; {artifact.delegated:.0%} of its operators delegated"
    if check is None:
        return f"not verified: {not_run}{taken}"
    said = f"{artifact.runnable.path.name} verified with {check.runtime}: {check.real}; {check.metric}{taken}"
    if artifact.compiled_from is not None:
        said += f"\n{artifact.path.name} was compiled from that file, and cannot be run here. {artifact.npu}"
    return said


def _budgeted_evidence(finished: Finished, deliveries: Sequence[Delivery], target: Target) -> Evidence:
    """Return the evidence for the delivery of the budgeted runtime and precision."""
    budgeted = (target.runtime, target.precision)
    main = next(d for d in deliveries if (d.artifact.format, d.artifact.precision) == budgeted)
    return delivery_evidence(
        main,
        finished.plan,
        finished.score,
        device=target.profile.id,
        measured_at=str(target.place) if target.place.is_reached else None,
    )


def describe(job: Job, finished: Finished, deliveries: tuple[Delivery, ...]) -> Manifest:
    """Return the manifest: everything that the bundle holds and promises."""
    outputs = outputs_for(finished.model, job.example_inputs)
    plan, target, task = finished.plan, job.target, job.task
    normalization = task.normalization
    results = check_promises(plan.budget, _budgeted_evidence(finished, deliveries, target))
    packages = {package: v for delivery in deliveries for package, v in delivery.artifact.versions.items()}
    return Manifest(
        name=job.name,
        created_at=datetime.now(UTC),
        profile=target.profile.id,
        runtime=target.runtime,
        task=task.name,
        labels=task.labels,
        normalization=None
        if normalization is None
        else PixelNormalization(mean=normalization.mean, std=normalization.std),
        inputs=_specs("input", job.example_inputs),
        outputs=_specs("output", outputs),
        budget=plan.budget,
        results=results,
        kept=all(result.kept for result in results),
        score=finished.score,
        reconstruction=finished.reconstruction,
        quantization=finished.quantization,
        dense=Counts(parameters=plan.dense.parameters, macs=plan.dense.macs),
        delivered=Counts(parameters=plan.cost.parameters, macs=plan.cost.macs),
        deliveries=deliveries,
        versions={"sekron-edge": version("sekron-edge"), "python": platform.python_version(), **packages},
        seed=job.seed,
        files={},
    )


def golden(model: nn.Module, job: Job) -> Golden:
    """Return real inputs and the PyTorch model's outputs for them, tensor by tensor."""
    inputs, _ = heldout_samples(job.task, _GOLDEN_SAMPLES)
    samples = [pytrees.tensors(outputs_for(model, one)) for one in pytrees.batches(inputs, 1)]
    outputs = pytrees.tensors(pytrees.concatenated(samples))
    return Golden(tuple(each.numpy() for each in pytrees.tensors(inputs)), tuple(each.numpy() for each in outputs))


def _specs(name: str, tree: Any) -> tuple[TensorSpec, ...]:
    """Describe tensors by their places in a pytree."""
    return tuple(
        TensorSpec(
            name=place,
            shape=tuple(value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
            place=place,
        )
        for place, value in zip(pytrees.places(tree, name), pytrees.tensors(tree), strict=True)
    )
