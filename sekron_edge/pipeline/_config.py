"""The job as a TOML file: a model, data, a target, budgets, how to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, create_model

from sekron_edge import documents, references
from sekron_edge.artifacts import Precision
from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._own_tasks import is_reference, task_kind
from sekron_edge.planner import EVERY_LAYER, LayerSelection
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.reconstruction import ReconstructionConfig
from sekron_edge.settings import Settings, described
from sekron_edge.task_kinds import ConfigPath, DataSection, Reference, task_names
from sekron_edge.training import FinetuneConfig, TrainConfig

DEFAULT_TASK = "classification"

_AnySection = TypeVar("_AnySection", bound=BaseModel)


class ModelSection(Settings):
    """The model.

    Attributes:
        factory: ``package.module:name`` or ``file.py:name``: a function or a class.
        args: Its keyword arguments.
        weights: A file of safetensors or of ``torch.save``: a state dict, or a checkpoint that holds one.
        weights_key: The state dict to take, where a checkpoint holds several that fit, as ``ema``.
    """

    factory: str
    args: dict[str, Any] = Field(default_factory=dict)
    weights: ConfigPath | None = None
    weights_key: str | None = None


class TargetSection(Settings):
    """The device, the runtime whose latency counts, and the formats to deliver.

    Attributes:
        profile: Id of a device profile, or path to a TOML file.
        runtime: Format whose latency is budgeted; by default the profile's.
        formats: Formats in the bundle, each in all ``precisions`` that it supports; by default the profile's.
        precisions: Of the artifacts; the first is planned and measured against the budgets.
        threads: Threads that the runtime may use; by default the profile's.
        runs: Least number of timed runs.
        measured_on: How the profile's device is reached, ``ssh:NAME`` or ``adb:NAME``. It is calibrated and measured
            there, so plans do not rest on estimates.
    """

    profile: str = "host"
    runtime: str | None = None
    formats: tuple[str, ...] | None = None
    precisions: tuple[Precision, ...] = Field(default=("fp32",), min_length=1)
    threads: int | None = Field(default=None, ge=1)
    runs: int = Field(default=50, ge=4)
    measured_on: str | None = None


class JobConfig(Settings):
    """One job of ``sekron-edge run``.

    ``task`` is a kind's name, or the user's own by reference, as ``mine.py:task``; it decides which keys ``data`` takes
    (`sekron_edge.task_kinds`). Relative paths start at the file's folder.
    ``train`` is used where the model has no weights; its result is cached, so that the next job with the same model,
    data and settings does not train again. ``seed`` decides everything random, also in training and fine-tuning.
    Without a budget the artifact must take half the dense one's time.
    """

    name: str
    task: str = DEFAULT_TASK
    seed: int = Field(default=0, ge=0)
    model: ModelSection
    data: SerializeAsAny[DataSection]
    target: TargetSection = TargetSection()
    budget: Budget = HALF_THE_TIME
    train: TrainConfig | None = None
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    plan: LayerSelection = EVERY_LAYER


def load_config(path: Path) -> JobConfig:
    """Read a job.

    Raises:
        ConfigError: If the file cannot be read, is not TOML, or has a wrong key or value; names the file, the key and
            the nearest valid key.
    """
    table = documents.read_toml(path, ConfigError)
    folder = path.resolve().parent
    task = table.get("task", DEFAULT_TASK)
    if isinstance(task, str) and is_reference(task):
        task = table["task"] = references.located(task, folder)
    form = _form_of(task, path)
    try:
        config = form.model_validate(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {described(error, form)}") from error
    model, data, target = _located(config.model, folder), _located(config.data, folder), config.target
    model = model.model_copy(update={"factory": references.located(model.factory, folder)})
    if target.profile.endswith(".toml"):
        target = target.model_copy(update={"profile": str(folder / target.profile)})
    return config.model_copy(update={"model": model, "data": data, "target": target})


def _form_of(task: Any, path: Path) -> type[JobConfig]:
    """Return the model of a job with this task: ``data`` is the section of the task's kind."""
    known = task_names()
    if task not in known and not (isinstance(task, str) and is_reference(task)):
        raise ConfigError(
            f"{path}: task: Input should be {', '.join(map(repr, known))}, or your own as 'mine.py:task', got {task!r}"
        )
    return create_model("JobConfig", __base__=JobConfig, data=(task_kind(task).section, ...))


def _located(section: _AnySection, folder: Path) -> _AnySection:
    """Return a section whose relative paths, and those of references, start at a folder."""
    paths = {name: folder / value for name, value in section if isinstance(value, Path)}
    named = {
        name: Reference(references.located(value, folder)) for name, value in section if isinstance(value, Reference)
    }
    return section.model_copy(update={**paths, **named})
