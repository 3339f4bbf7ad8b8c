"""Layers that a job keeps in float where int8 rounds the others: refused early where that cannot be, or chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from sekron_edge.artifacts import get_exporter, require_keeping, rounds
from sekron_edge.bundle import shares
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._progress import Progress
from sekron_edge.pipeline._target import Target
from sekron_edge.pipeline._trials import Bench
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import Calibration, Plan
from sekron_edge.quantization import QuantizationConfig, proposed_floats, simulated
from sekron_edge.training import evaluate


def require_floats_possible(target: Target, config: QuantizationConfig) -> None:
    """Refuse to keep layers in float where nothing is rounded, or a format that is delivered cannot do it.

    Raises:
        ConfigError: Names the setting, what is in the way, and the remedy.
    """
    if not config.keep_float:
        return
    rounding = [precision for precision in target.precisions if rounds(precision)]
    if not rounding:
        raise ConfigError(
            f"quantization.keep_float: it is for layers that int8 rounds, and the target's precisions are "
            f"{', '.join(target.precisions)}; add int8 to them, or leave keep_float out"
        )
    for name in target.formats:
        for precision in rounding:
            if precision in get_exporter(name).precisions:
                require_keeping(name, precision)


def chosen_floats(
    job: Job, small: nn.Module, work: Work, progress: Progress, *, affords: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """Return the layers that the job's rounded artifacts keep in float: those that it names, or those that cost most.

    A choice is made once, before training, and kept: a job that goes on makes the same.

    Args:
        job: If its settings say ``auto``, the simulation chooses; none where int8 costs no more than the tolerance.
        small: The decomposed model, before training.
        work: Keeps the choice.
        progress: Receives the reports.
        affords: Says whether the budget is kept with layers in float (`keeps_budget`): those that cost least of a
            choice are rounded until it is.
    """
    if job.quantization.keep_float != "auto":
        return job.quantization.named_floats
    known = work.floats()
    if known is None:
        with progress.busy("looking for layers to keep in float"):
            known = _proposed(job, small)
        while known and not affords(known):
            progress.say(f"the budget has no room for {', '.join(known)} in float")
            known = known[:-1]
        work.keep_floats(known)
    progress.say(f"kept in float: {', '.join(known)}" if known else "no layer is kept in float")
    return known


def keeps_budget(job: Job, plan: Plan, work: Work, floats: tuple[str, ...]) -> bool:
    """Say whether a plan's artifact with some layers in float keeps the job's budget, measured where it can be.

    Args:
        job: Of the plan.
        plan: Exported with the weights as they were decomposed, as in trials.
        work: Its folder of artifacts is used.
        floats: Names of the layers.
    """
    keeping = replace(job, quantization=job.quantization.model_copy(update={"keep_float": floats}))
    bench = Bench(keeping, Calibration(job.model, job.calibration_inputs), work.artifacts)
    evidence = bench.trial(plan).evidence
    return all(share <= 1 for share in shares(job.target.with_device_limits(job.budget), evidence).values())


def _proposed(job: Job, small: nn.Module) -> tuple[str, ...]:
    task, calibration = job.task, job.calibration_inputs
    in_float, in_int8 = (evaluate(one, task, split="calibration") for one in (small, simulated(small, calibration)))
    return proposed_floats(small, calibration) if task.lost(in_int8, in_float) > job.quantization.tolerance else ()
