"""From a plan to a finished model: decomposed, distilled, and scored on held-out data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from sekron_edge.bundle import Score
from sekron_edge.pipeline._floats import chosen_floats, keeps_budget
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._noise import quiet_enough
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._reconstruction import reconstructed
from sekron_edge.pipeline._rounding import settle_rounding
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import Plan, decompose
from sekron_edge.quantization import QuantizationReport, report_quantization
from sekron_edge.reconstruction import ReconstructionReport
from sekron_edge.training import calibration_batches, evaluate, finetune, reestimate_batch_norm


@dataclass(frozen=True)
class Finished:
    """A model ready to be delivered: its score and the dense one's on held-out data, and the cost of int8."""

    model: nn.Module
    plan: Plan
    score: Score
    quantization: QuantizationReport | None = None
    reconstruction: ReconstructionReport | None = None

    @property
    def keep_float(self) -> tuple[str, ...]:
        """The layers that rounded artifacts keep in float."""
        report = self.quantization
        return report.keep_float if report is not None and report.kept else ()


def finish(job: Job, plan: Plan, *, work: Work, progress: Progress) -> Finished:
    """Decompose, reconstruct, re-estimate batch norms, distil, train against rounding if it costs too much, and score.

    Args:
        job: Its model is the teacher.
        plan: The structure of each layer.
        work: Keeps checkpoints; a job that was interrupted goes on from them.
        progress: Receives the reports.
    """
    small, reconstruction = _decomposed(job, plan, work, progress)
    affords = partial(keeps_budget, job, plan, work)
    keep_float = chosen_floats(job, small, work, progress, affords=affords) if job.is_rounded else ()
    model = _distilled(small, job, plan, work, progress)
    quantization = None
    if job.is_rounded:
        model, quantization = _settled(model, job, plan, work, progress, keep_float)
    score = _scored(model, job, progress)
    return Finished(model.eval(), plan, score, quantization, reconstruction)


def _decomposed(job: Job, plan: Plan, work: Work, progress: Progress) -> tuple[nn.Module, ReconstructionReport | None]:
    with progress.busy("decomposing the layers for the least error of their outputs"):
        small = decompose(job.model, plan, calibration=job.calibration_inputs)
    small, report = reconstructed(small, job, plan, kept=work.reconstructed, progress=progress)
    return reestimate_batch_norm(small, calibration_batches(job.task)), report


def _distilled(small: nn.Module, job: Job, plan: Plan, work: Work, progress: Progress) -> nn.Module:
    if not plan.structures():
        return small
    epochs = job.finetuning.epochs
    progress.say(f"distilling for {epochs} epoch{'s' if epochs > 1 else ''}")
    return finetune(
        small,
        job.model,
        job.task,
        config=job.finetuning,
        checkpoints=work.checkpoints,
        resume=True,
        progress=progress.interactive,
    )


def _settled(
    model: nn.Module, job: Job, plan: Plan, work: Work, progress: Progress, keep_float: tuple[str, ...]
) -> tuple[nn.Module, QuantizationReport]:
    """Return the model to quantize, and the effect of rounding on each of its layers."""
    model, trained = settle_rounding(
        model, job, checkpoints=work.rounding_checkpoints, progress=progress, keep_float=keep_float
    )
    errors = {layer.name: layer.relative_error for layer in plan.layers if layer.structure is not None}
    with progress.busy("rounding layer by layer"):
        report = report_quantization(
            model, job.calibration_inputs, float_errors=errors, trained=trained, keep_float=keep_float
        )
        report = quiet_enough(model, job, report, progress)
    progress.say(str(report))
    return model, report


def _scored(model: nn.Module, job: Job, progress: Progress) -> Score:
    task, samples = job.task, len(job.task.heldout)  # type: ignore[arg-type]
    with progress.busy(f"evaluating on {samples:,} held-out samples"):
        score = Score(
            metric=task.metric_name,
            unit=task.metric_unit,
            dense=evaluate(job.model, task),
            delivered=evaluate(model, task),
            samples=samples,
            higher_is_better=task.higher_is_better,
        )
    progress.say(f"held-out {score.metric}: {score.shown(score.delivered)}, dense {score.shown(score.dense)}")
    return score
