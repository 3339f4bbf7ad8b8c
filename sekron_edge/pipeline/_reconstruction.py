"""The decomposed model of a job, corrected block by block on training inputs without labels."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sekron_edge import cache
from sekron_edge.nn import untied_state
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._samples import training_inputs
from sekron_edge.planner import Calibration, Plan
from sekron_edge.reconstruction import ReconstructionConfig, ReconstructionReport, batch_for, reconstruct

# Passes of one input over the network: to run both networks through all blocks and collect moments, and for a step.
_PASSES_A_SAMPLE, _PASSES_A_STEP = 10, 3
# Fewer steps than this move factors by less than they disturb them.
_FEWEST_SAMPLES, _FEWEST_STEPS = 32, 50
_REPORT = "report"


def reconstructed(
    small: nn.Module, job: Job, plan: Plan, *, kept: Path, progress: Progress
) -> tuple[nn.Module, ReconstructionReport | None]:
    """Return a plan's decomposed model with its blocks corrected, and what that did; nothing if the job asks for none.

    Args:
        small: The result of `sekron_edge.decompose`.
        job: Its training inputs are used, in the order of its seed.
        plan: Of the job.
        kept: File of the result in the job's folder: a job that was interrupted goes on from it.
        progress: Receives the reports.
    """
    structures = plan.structures()
    if not structures or job.reconstruction.samples == 0:
        return small, None
    config = _afforded(job)

    def made() -> tuple[nn.Module, ReconstructionReport]:
        return reconstruct(
            small,
            job.model,
            structures,
            training_inputs(job.task, config.samples, job.seed),
            config=config,
            progress=lambda done, total: progress.step("reconstructing the blocks", done, total),
        )

    def read(path: Path) -> tuple[nn.Module, ReconstructionReport]:
        with safe_open(path, "pt") as stored:
            report = ReconstructionReport.model_validate_json((stored.metadata() or {})[_REPORT])
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # no mapping
        small.load_state_dict(state, strict=False)
        return small, report

    def write(result: tuple[nn.Module, ReconstructionReport], path: Path) -> None:
        model, report = result
        save_file(untied_state(model), path, metadata={_REPORT: report.model_dump_json()})

    model, report = cache.cached(kept, read=read, make=made, write=write)
    progress.say(str(report))
    return model, report


def _afforded(job: Job) -> ReconstructionConfig:
    """Return as many samples and steps as may take the time that the job's effort stands for."""
    config = job.reconstruction
    passes = config.effort * Calibration(job.model, job.calibration_inputs).passes_a_phase
    train = len(job.task.train)  # type: ignore[arg-type]
    samples = min(config.samples, train, max(_FEWEST_SAMPLES, int(passes / 2 / _PASSES_A_SAMPLE)))
    steps = min(config.steps, int(passes / 2 / (_PASSES_A_STEP * batch_for(samples))))
    return config.model_copy(update={"samples": samples, "steps": steps if steps >= _FEWEST_STEPS else 0})
