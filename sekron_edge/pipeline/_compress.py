"""The main job on a model in memory: plan, decompose, fine-tune, export, verify, measure, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from sekron_edge import pytrees
from sekron_edge.artifacts import Precision
from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.bundle import Manifest, pack
from sekron_edge.devices import DeviceProfile
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.nn import untied_state
from sekron_edge.pipeline._context import contexts_for
from sekron_edge.pipeline._delivery import deliver, describe, golden
from sekron_edge.pipeline._finish import finish
from sekron_edge.pipeline._floats import require_floats_possible
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._latency import require_known_latency
from sekron_edge.pipeline._output import Output, claimed
from sekron_edge.pipeline._planning import plan_for
from sekron_edge.pipeline._progress import LogProgress, Progress
from sekron_edge.pipeline._settings import profile_of, require_settings
from sekron_edge.pipeline._target import Target
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import EVERY_LAYER, LayerSelection, Plan
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.reconstruction import ReconstructionConfig
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig


@dataclass(frozen=True)
class Compressed:
    """The result of a job: the bundle's folder and manifest, the plan, and the PyTorch model that it delivers."""

    bundle: Path
    manifest: Manifest
    plan: Plan
    model: nn.Module


def plan(
    model: nn.Module,
    example_inputs: pytrees.Inputs,
    profile: DeviceProfile | str,
    *,
    task: Task,
    budget: Budget = HALF_THE_TIME,
    runtime: str | None = None,
    precision: Precision = "fp32",
    threads: int | None = None,
    measured_on: str | None = None,
    selection: LayerSelection = EVERY_LAYER,
    work: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Choose a structure for each layer, so that the exported artifact keeps the budget.

    On this machine, and on a device that is reached, candidates are exported and measured, and the plan is corrected by
    the measurements. For another device latencies are estimates, and the plan's ``latency_source`` says so.

    Args:
        model: Left untouched.
        example_inputs: A batch of 1, as the model takes them (`sekron_edge.pytrees`): a tensor, a tuple of arguments,
            or a dict of keyword arguments, any pytrees. Their shapes become the artifact's.
        profile: The device, or its id.
        task: Its calibration data decides how much each layer's error costs.
        budget: By default half of the dense model's latency.
        runtime: Format whose latency and size count; by default the profile's.
        precision: Of the artifact.
        threads: Threads that the runtime may use; by default the profile's.
        measured_on: How the device is reached, as ``ssh:board``: calibrated and measured there.
        selection: The layers that may be compressed.
        work: Folder for the artifacts that are tried; by default a temporary one.
        seed: Recorded in the plan.
        progress: Receives the reports; by default the logger ``sekron_edge``.

    Raises:
        InfeasibleBudgetError: If no plan keeps the budget; carries the nearest points.
        ConfigError: If an argument is of the wrong type, the model cannot be planned (`sekron_edge.expose_layers`), the
            task's samples are not what it takes, the runtime has no exporter, or the budget needs a figure that is not
            known of the device.
        UnsupportedLayerError: If a layer's weights are not finite.
    """
    require_settings(
        {
            "budget": budget,
            "selection": selection,
            "seed": seed,
            "runtime": runtime,
            "precisions": (precision,),
            "threads": threads,
            "measured_on": measured_on,
            "work": work,
        }
    )
    device = profile_of(profile)
    target = Target.choose(
        device, runtime=runtime, formats=(), precisions=(precision,), threads=threads, measured_on=measured_on
    )
    job = Job.prepared(model, example_inputs, task, target, budget=budget, selection=selection, seed=seed)
    progress = progress or LogProgress()
    for note in task.notes:
        progress.say(note)
    with tempfile.TemporaryDirectory() as folder:
        return plan_of(job, work=Path(work or folder), progress=progress)


def compress(
    model: nn.Module,
    example_inputs: pytrees.Inputs,
    *,
    profile: DeviceProfile | str,
    task: Task,
    out: str | Path,
    budget: Budget = HALF_THE_TIME,
    runtime: str | None = None,
    formats: Sequence[str] | None = None,
    precisions: Sequence[Precision] = ("fp32",),
    threads: int | None = None,
    runs: int = 50,
    measured_on: str | None = None,
    reconstruction: ReconstructionConfig | None = None,
    finetuning: TrainConfig | None = None,
    quantization: QuantizationConfig | None = None,
    selection: LayerSelection = EVERY_LAYER,
    name: str = "model",
    seed: int = 0,
    resume: bool = False,
    sign: str | Path | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Do the main job: a trained model and a device in, a verified bundle that keeps its budgets out.

    Args:
        model: Trained; left untouched.
        example_inputs: A batch of 1, as the model takes them (`sekron_edge.pytrees`): a tensor, a tuple of arguments,
            or a dict of keyword arguments, any pytrees. Their shapes become the artifacts'.
        profile: The device, or its id.
        task: What the model is for.
        out: Folder of the bundle; it appears whole, or not at all.
        budget: What the artifact must keep; by default half of the dense model's latency.
        runtime: Format whose latency and size count; by default the profile's.
        formats: Formats to deliver; by default those of the profile that have an exporter.
        precisions: Of the artifacts; the first is budgeted.
        threads: Threads that the runtime may use; by default the profile's.
        runs: Least number of timed runs.
        measured_on: How the device is reached, as ``ssh:board``: calibrated and measured there.
        reconstruction: How blocks are corrected before that, without labels.
        finetuning: How to distil; by default two epochs.
        quantization: When to train against rounding, and what to keep in float, if a precision is int8.
        selection: The layers that may be compressed.
        name: Name of the bundle, and stem of its artifacts.
        seed: Seed of everything random.
        resume: Go on with an unfinished job in ``OUT.work``.
        sign: File of the OpenSSH key that signs the bundle, if any.
        progress: Receives the reports; by default the logger ``sekron_edge``.

    Raises:
        InfeasibleBudgetError: If the budget cannot be kept; carries the nearest points. If that is known only of the
            finished model, its bundle is left in ``OUT.nearest``, marked as one that does not keep its budget.
        VerificationError: If an artifact does not compute what the model computes.
        SekronEdgeError: Other errors, as their names say. Nothing appears at ``out`` with any of these.
    """
    require_settings(
        {
            "out": out,
            "budget": budget,
            "selection": selection,
            "seed": seed,
            "runtime": runtime,
            "formats": formats,
            "precisions": precisions,
            "threads": threads,
            "runs": runs,
            "measured_on": measured_on,
            "reconstruction": reconstruction,
            "finetuning": finetuning,
            "quantization": quantization,
            "name": name,
            "sign": sign,
        }
    )
    device = profile_of(profile)
    target = Target.choose(
        device,
        runtime=runtime,
        formats=formats,
        precisions=precisions,
        threads=threads,
        runs=runs,
        measured_on=measured_on,
    )
    require_floats_possible(target, quantization or QuantizationConfig())
    with claimed(Path(out), resume=resume, sign=None if sign is None else Path(sign)) as output:
        job = Job.prepared(
            model,
            example_inputs,
            task,
            target,
            budget=budget,
            reconstruction=reconstruction or ReconstructionConfig(),
            finetuning=finetuning or FinetuneConfig(seed=seed),
            quantization=quantization or QuantizationConfig(),
            selection=selection,
            name=name,
            seed=seed,
        )
        progress = progress or LogProgress()
        for note in task.notes:
            progress.say(note)
        return compress_job(job, output, progress=progress)


def plan_of(job: Job, *, work: Path, progress: Progress) -> Plan:
    """Plan a job; errors are those of `plan`.

    Args:
        job: The job.
        work: Folder for the artifacts that are tried.
        progress: Receives the reports.
    """
    require_known_latency(job.target, job.budget)
    (context,) = contexts_for([job], progress)
    return plan_for(context, work=work, progress=progress)


def compress_job(job: Job, output: Output, *, progress: Progress) -> Compressed:
    """Do a job, or go on with the one that is there; errors are those of `compress`.

    Args:
        job: The job.
        output: Where the bundle appears whole, or not at all; claimed before anything was computed.
        progress: Receives the reports.
    """
    work = Work(output, job.settings())
    chosen = work.plan()
    if chosen is None:
        chosen = plan_of(job, work=work.artifacts, progress=progress)
        work.keep(chosen)
    else:
        progress.say(f"going on with the plan in {work.folder}")
    finished = finish(job, chosen, work=work, progress=progress)
    deliveries = deliver(job, finished, work=work.artifacts, progress=progress)
    manifest = describe(job, finished, deliveries)
    state, samples = untied_state(finished.model), golden(finished.model, job)
    if not manifest.kept:
        # Not signed: a signature is for what may be deployed.
        pack(manifest, chosen, samples, state, output.nearest)
        raise _missed(manifest, output, work)
    manifest = pack(manifest, chosen, samples, state, output.bundle, sign=output.sign)
    work.remove()
    return Compressed(output.bundle, manifest, chosen, finished.model)


def _missed(manifest: Manifest, output: Output, work: Work) -> InfeasibleBudgetError:
    missed = manifest.missed
    said = "; ".join(f"{r.entry} is {r.found:.6g} ({r.how}) where {r.limit:.6g} is allowed" for r in missed)
    raised = " and ".join(f"{r.entry} by {r.found / r.limit - 1:.1%}" if r.limit else r.entry for r in missed)
    return InfeasibleBudgetError(
        f"the finished model does not keep its budget: {said}. Raise {raised}, or fine-tune for longer. The nearest "
        f"bundle, which does not keep it, is {output.nearest}; to measure again, --resume goes on in {work.folder}",
        binding=[result.entry for result in missed],
        nearest=[{result.entry: result.found for result in manifest.results}],
        bundle=output.nearest,
    )
