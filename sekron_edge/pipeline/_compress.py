"""The main job on a model that is there: plan, decompose, fine-tune, export, verify, measure, pack."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from sekron_edge.artifacts import Precision
from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.bundle import Manifest, Score, pack
from sekron_edge.devices import DeviceProfile, load_profile
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.files import fingerprint
from sekron_edge.pipeline._delivery import Finished, deliver, describe, golden
from sekron_edge.pipeline._latency import latency_model_of, require_known_latency
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._planning import PlanningContext, plan_for
from sekron_edge.pipeline._progress import LogProgress, Progress
from sekron_edge.pipeline._rounding import settle_rounding
from sekron_edge.pipeline._scores import calibration_for, calibration_inputs, evaluator_for, scores_for
from sekron_edge.pipeline._target import Target
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import Plan, decompose
from sekron_edge.quantization import QuantizationConfig, report_quantization
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig, evaluate, finetune, reestimate_batch_norm


@dataclass(frozen=True)
class Compressed:
    """What came of a job: the bundle's folder and manifest, the plan, and the PyTorch model that it delivers."""

    bundle: Path
    manifest: Manifest
    plan: Plan
    model: nn.Module


def plan(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    profile: DeviceProfile | str,
    *,
    task: Task,
    budget: Budget = HALF_THE_TIME,
    runtime: str | None = None,
    precision: Precision = "fp32",
    threads: int | None = None,
    measured_on: str | None = None,
    work: Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Choose what each layer becomes, so that the exported artifact keeps the budget.

    On this machine, and on a device that is reached, candidates are exported and measured, and the plan corrected by
    that; for another device latencies are estimates, and the plan's ``latency_source`` says so.

    Args:
        model: Left untouched.
        example_inputs: One tensor an input; their shapes become the artifact's.
        profile: The device, or its id.
        task: Its calibration data decides how much each layer's error hurts.
        budget: By default half of the dense model's latency.
        runtime: Format whose latency and size count; by default the profile's.
        precision: Of the artifact.
        threads: That the runtime may use; by default the profile's.
        measured_on: Where the device is reached, as ``ssh:board``: it is calibrated and measured there.
        work: Folder for the artifacts that are tried; by default one that is removed again.
        seed: Recorded in the plan.
        progress: Receives what is reported; by default the logger ``sekron_edge``.

    Raises:
        InfeasibleBudgetError: If no plan keeps the budget; carries the nearest points.
        ConfigError: If the runtime has no exporter, or the budget asks for what nobody knows of the device.
        UnsupportedLayerError: If a layer's weights are not finite.
    """
    device = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    target = Target.choose(
        device, runtime=runtime, formats=(), precisions=(precision,), threads=threads, measured_on=measured_on
    )
    with tempfile.TemporaryDirectory() as folder:
        return plan_on(
            model,
            example_inputs,
            task,
            budget,
            target,
            work=work or Path(folder),
            seed=seed,
            progress=progress or LogProgress(),
        )


def plan_on(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    task: Task,
    budget: Budget,
    target: Target,
    *,
    work: Path,
    seed: int,
    progress: Progress,
) -> Plan:
    """Plan for a target; arguments and errors are those of `plan`."""
    require_known_latency(target, budget)
    (context,) = contexts_for(model, example_inputs, task, [target], progress)
    return plan_for(context, target.with_device_limits(budget), work=work, seed=seed, progress=progress)


def contexts_for(
    model: nn.Module, example_inputs: tuple[Tensor, ...], task: Task, targets: Sequence[Target], progress: Progress
) -> list[PlanningContext]:
    """Calibrate, score and measure sensitivities: what plans for each target are made from, whatever the budget."""
    places = ", ".join(sorted({str(target.place) for target in targets}))
    with progress.busy(f"calibrating the latency model, once for {places}"):
        latencies = [latency_model_of(target) for target in targets]
    for latency in latencies:
        progress.say(f"latency model: {latency.source}")
    calibration = calibration_for(model, task)
    scores = scores_for(calibration, example_inputs, task, targets, latencies, progress=progress)
    evaluator = evaluator_for(calibration, task)
    (inputs,) = calibration.inputs
    return [
        PlanningContext(model, example_inputs, inputs, own, target, evaluator)
        for own, target in zip(scores, targets, strict=True)
    ]


def compress(
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
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
    finetuning: TrainConfig | None = None,
    quantization: QuantizationConfig | None = None,
    name: str = "model",
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> Compressed:
    """Do the main job: a trained model and a device in, a verified bundle that keeps its budgets out.

    Args:
        model: Trained; left untouched.
        example_inputs: One tensor an input, a batch of 1; their shapes become the artifacts'.
        profile: The device, or its id.
        task: What the model is for.
        out: Folder of the bundle; it appears whole, or not at all.
        budget: What the artifact must keep; by default half of the dense model's latency.
        runtime: Format whose latency and size count; by default the profile's.
        formats: To deliver; by default the profile's, as far as exporters are known.
        precisions: Of the artifacts; the first is budgeted.
        threads: That the runtime may use; by default the profile's.
        runs: Least number of timed runs.
        measured_on: Where the device is reached, as ``ssh:board``: it is calibrated and measured there.
        finetuning: How to distil; by default two epochs.
        quantization: When to train against rounding, if a precision is int8.
        name: Of the bundle, and stem of its artifacts.
        seed: Of everything random.
        resume: Go on with an unfinished job in ``OUT.work``.
        progress: Receives what is reported; by default the logger ``sekron_edge``.

    Raises:
        InfeasibleBudgetError: If the budget cannot be kept; carries the nearest points.
        VerificationError: If an artifact does not compute what the model computes.
        SekronEdgeError: Others as their names say; nothing appears at ``out`` then.
    """
    progress = progress or LogProgress()
    device = profile if isinstance(profile, DeviceProfile) else load_profile(profile)
    target = Target.choose(
        device,
        runtime=runtime,
        formats=formats,
        precisions=precisions,
        threads=threads,
        runs=runs,
        measured_on=measured_on,
    )
    config, rounding = finetuning or FinetuneConfig(seed=seed), quantization or QuantizationConfig()
    out = Path(out)
    work = Work(out, _settings(model, task, budget, target, config, rounding, seed), resume=resume)
    chosen = work.plan()
    if chosen is None:
        chosen = plan_on(model, example_inputs, task, budget, target, work=work.artifacts, seed=seed, progress=progress)
        work.keep(chosen)
    else:
        progress.say(f"going on with the plan in {work.folder}")
    finished = _finish(model, chosen, task, config, rounding if "int8" in target.precisions else None, work, progress)
    deliveries = deliver(finished, example_inputs, task, target, name=name, work=work.artifacts, progress=progress)
    manifest = describe(
        finished, example_inputs, task, target,
        name=name, budget=chosen.budget, deliveries=deliveries, seed=seed,
    )  # fmt: skip
    _require_kept(manifest, work)
    manifest = pack(manifest, chosen, golden(finished.model, task), finished.model.state_dict(), out)
    work.remove()
    return Compressed(out, manifest, chosen, finished.model)


def _finish(
    model: nn.Module,
    chosen: Plan,
    task: Task,
    config: TrainConfig,
    rounding: QuantizationConfig | None,
    work: Work,
    progress: Progress,
) -> Finished:
    """Decompose, compute batch-norm statistics anew, distil, settle what rounding costs, and score on held-out data."""
    with progress.busy("decomposing the layers for the least error of their outputs"):
        small = decompose(model, chosen, calibration=(calibration_inputs(task),))
    small = reestimate_batch_norm(small, task.calibration)
    if chosen.structures():
        progress.say(f"distilling for {config.epochs} epoch{'s' if config.epochs > 1 else ''}")
        small = finetune(
            small,
            model,
            task,
            config=config,
            checkpoints=work.checkpoints,
            resume=True,
            progress=progress.interactive,
        )
    quantization = None
    if rounding is not None:
        small, trained = settle_rounding(
            small, model, task,
            config=rounding, finetuning=config, checkpoints=work.rounding_checkpoints, progress=progress,
        )  # fmt: skip
        errors = {layer.name: layer.relative_error for layer in chosen.layers if layer.structure is not None}
        with progress.busy("rounding layer by layer"):
            quantization = report_quantization(small, calibration_inputs(task), float_errors=errors, trained=trained)
        progress.say(str(quantization))
    with progress.busy(f"evaluating on {len(task.heldout):,} held-out samples"):  # type: ignore[arg-type]
        score = Score(
            metric=task.metric_name,
            unit=task.metric_unit,
            dense=evaluate(model, task),
            delivered=evaluate(small, task),
            samples=len(task.heldout),  # type: ignore[arg-type]
        )
    progress.say(f"held-out {score.metric}: {score.shown(score.delivered)}, dense {score.shown(score.dense)}")
    return Finished(model, small.eval(), chosen, score, quantization)


def _settings(
    model: nn.Module,
    task: Task,
    budget: Budget,
    target: Target,
    config: TrainConfig,
    rounding: QuantizationConfig,
    seed: int,
) -> dict[str, str]:
    """Return what decides the result, by the name that people know it by."""
    return {
        "model": state_fingerprint(model),
        "data": data_fingerprint(task),
        "budget": budget.model_dump_json(),
        "device": target.profile.id,
        "measured_on": str(target.place.name),
        "runtime": target.runtime,
        "formats": ", ".join(target.formats),
        "precision": ", ".join(target.precisions),
        "threads": str(target.threads),
        "finetune section": config.model_dump_json(exclude={"threads"}),
        "quantization section": rounding.model_dump_json(),
        "seed": str(seed),
    }


def data_fingerprint(task: Task) -> str:
    """Hash the calibration data: it changes with the data, their normalisation and their seed."""
    return fingerprint(calibration_inputs(task).numpy().tobytes(), len(task.train))  # type: ignore[arg-type]


def _require_kept(manifest: Manifest, work: Work) -> None:
    missed = [result for result in manifest.results if not result.kept]
    if not missed:
        return
    said = "; ".join(f"{r.entry} is {r.found:.6g} ({r.how}) where {r.limit:.6g} is allowed" for r in missed)
    raise InfeasibleBudgetError(
        f"the finished model does not keep its budget: {said}. Raise {' and '.join(r.entry for r in missed)}, or "
        f"fine-tune for longer. The fine-tuned model is kept in {work.checkpoints}",
        binding=[result.entry for result in missed],
        nearest=[{result.entry: result.found for result in manifest.results}],
    )
