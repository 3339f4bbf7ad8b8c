"""A job from its config file: load or train the model, then compress it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sekron_edge import cache, files, references
from sekron_edge.budget import Budget
from sekron_edge.devices import load_profile
from sekron_edge.errors import ConfigError, InfeasibleBudgetError
from sekron_edge.nn import exportable_inputs, expose_layers, require_rounded, untied_state
from sekron_edge.pipeline._checkpoints import load_weights
from sekron_edge.pipeline._compress import Compressed, compress_job
from sekron_edge.pipeline._config import JobConfig
from sekron_edge.pipeline._context import contexts_for
from sekron_edge.pipeline._floats import require_floats_possible
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._latency import require_known_latency
from sekron_edge.pipeline._models import load_model, state_fingerprint
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._own_tasks import is_reference, made_task, task_kind
from sekron_edge.pipeline._planning import frontier_for, plan_for
from sekron_edge.pipeline._progress import LogProgress, Progress
from sekron_edge.pipeline._samples import calibration_inputs, data_fingerprint, example_inputs
from sekron_edge.pipeline._target import Target
from sekron_edge.planner import Plan
from sekron_edge.task import Task
from sekron_edge.training import train


def run_job(
    config: JobConfig,
    out: Path,
    *,
    resume: bool = False,
    sign: Path | None = None,
    progress: Progress | None = None,
) -> Compressed:
    """Do the main job of a config file.

    Args:
        config: The job.
        out: Folder of the bundle.
        resume: Go on with an unfinished job.
        sign: File of the OpenSSH key that signs the bundle, if any.
        progress: Receives the reports; by default the logger ``sekron_edge``.

    Raises:
        SekronEdgeError: As `compress`; and `ConfigError`, `DataError` if model or data are missing or wrong.
    """
    progress = progress or LogProgress()
    with claimed(out, resume=resume, sign=sign) as output, _their_errors(config):
        (job,) = _jobs(config, (), progress)
        return compress_job(job, output, progress=progress)


def plan_job(
    config: JobConfig, work: Path, *, devices: Sequence[str] = (), progress: Progress | None = None
) -> list[Plan]:
    """Plan the job of a config file, without fine-tuning, for each device from one scoring.

    Args:
        config: The job.
        work: Folder for the artifacts that are tried.
        devices: Ids or files of profiles; the config's own if none.
        progress: Receives the reports; by default the logger ``sekron_edge``.

    Raises:
        InfeasibleBudgetError: If one of them cannot keep the budget; names it.
        SekronEdgeError: Other errors as `run_job`.
    """
    progress = progress or LogProgress()
    plans = []
    with _their_errors(config):
        for context in contexts_for(_jobs(config, devices, progress), progress):
            try:
                plans.append(plan_for(context, work=work, progress=progress))
            except InfeasibleBudgetError as error:
                raise InfeasibleBudgetError(
                    f"{context.job.target.profile.id}: {error}", binding=error.binding, nearest=error.nearest
                ) from error
    return plans


def frontier_job(
    config: JobConfig,
    entry: str,
    points: int,
    work: Path,
    *,
    devices: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Plan]:
    """Return the job's plans from the dense model to the least of one entry; the job's own budget is ignored.

    Plans for one device are together. Arguments and errors are those of `plan_job`.
    """
    progress = progress or LogProgress()
    unbounded = config.model_copy(update={"budget": Budget()})
    with _their_errors(config):
        return [
            plan
            for context in contexts_for(_jobs(unbounded, devices, progress), progress)
            for plan in frontier_for(context, entry, points, work=work, progress=progress)
        ]


def _their_errors(config: JobConfig) -> AbstractContextManager[None]:
    """Show errors of the user's model and task as theirs, whenever their code runs."""
    return references.errors_of(config.model.factory, *filter(is_reference, (config.task,)))


def _jobs(config: JobConfig, devices: Sequence[str], progress: Progress) -> list[Job]:
    """Return the job for each device, or for the config's own; they differ only in their target."""
    if len(devices) > 1 and config.target.measured_on is not None:
        raise ConfigError(
            f"{config.target.measured_on} is one device, and {', '.join(devices)} are several; plan for one of them, "
            "or leave measured_on out"
        )
    targets = [_target(config, device) for device in devices or (config.target.profile,)]
    for target in targets:
        require_known_latency(target, config.budget)
        require_floats_possible(target, config.quantization)
    task = load_task(config)
    for note in task.notes:
        progress.say(note)
    job = Job.prepared(
        trained_model(config, task, progress),
        example_inputs(task),
        task,
        targets[0],
        budget=config.budget,
        finetuning=config.finetune.model_copy(update={"seed": config.seed}),
        reconstruction=config.reconstruction,
        quantization=config.quantization,
        selection=config.plan,
        name=config.name,
        seed=config.seed,
    )
    return [replace(job, target=target) for target in targets]


def _target(config: JobConfig, device: str) -> Target:
    wanted = config.target
    return Target.choose(
        load_profile(device),
        runtime=wanted.runtime,
        formats=wanted.formats,
        precisions=wanted.precisions,
        threads=wanted.threads,
        runs=wanted.runs,
        measured_on=wanted.measured_on,
    )


def load_task(config: JobConfig) -> Task:
    """Load the data of a job and make its task.

    Raises:
        ConfigError: If no kind of task has that name, keys of ``data`` do not go together, or the user's own code
            fails or makes no task.
        DataError: If the data is missing or broken.
    """
    kind, seed, folder = task_kind(config.task), config.seed, files.cache_folder()
    if is_reference(config.task):
        return made_task(kind, config.data, config.task, seed=seed, cache=folder)
    return kind.load(config.data, seed=seed, cache=folder)


def trained_model(config: JobConfig, task: Task, progress: Progress) -> nn.Module:
    """Return the job's model: with its weights, or trained as the job says; the result of training is cached.

    Raises:
        ConfigError: If the config has neither weights nor a ``train`` section, or both; or if the model has no layer
            of a name to be kept in float.
    """
    section, settings = config.model, config.train
    if section.weights is not None:
        if settings is not None:
            raise ConfigError("model.weights and a [train] section exclude each other: remove one")
        return load_model(
            section.factory,
            section.weights,
            args=section.args,
            weights_key=section.weights_key,
            progress=progress,
        )
    if settings is None:
        raise ConfigError("the model has no weights: give model.weights, or a [train] section to train it with")
    settings = settings.model_copy(update={"seed": config.seed})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = load_model(section.factory, args=section.args)
    named = config.quantization.named_floats
    if named:
        inputs = exportable_inputs(example_inputs(task), model)
        require_rounded(named, expose_layers(model, inputs), inputs)  # before hours of training
    key = files.fingerprint(
        state_fingerprint(model),
        data_fingerprint(calibration_inputs(task), task),
        settings.model_dump_json(),
        config.data.cache_key().encode(),
    )
    stored = files.cache_folder() / f"model-{key}.safetensors"
    if cache.known(stored, lambda path: load_file(str(path)).keys()) is not None:
        progress.say(f"the trained model is in the cache: {stored}")
    else:
        progress.say(f"training {config.name} for {settings.epochs} epochs")
        checkpoints = files.cache_folder() / f"training-{key}"
        trained = train(
            model, task, config=settings, checkpoints=checkpoints, resume=True, progress=progress.interactive
        )
        cache.keep(stored, lambda path: save_file(untied_state(trained), str(path)))
        if not stored.is_file():
            raise ConfigError(
                f"the trained model cannot be kept in {stored.parent}: name a folder that can be written to in "
                "SEKRON_EDGE_CACHE"
            )
        files.remove_folder(checkpoints)
    # The model is read back even if it was just trained: a resumed job must start from the same bits and strides.
    load_weights(model, stored)
    return model
