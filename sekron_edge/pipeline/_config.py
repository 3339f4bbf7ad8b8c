"""The job as a TOML file: a model, data, a target, budgets, how to train."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sekron_edge.artifacts import Precision
from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.errors import ConfigError
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.training import FinetuneConfig, TrainConfig

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def _expand(given: Any) -> Any:
    """Put environment variables, written ``${NAME}``, into a path.

    Raises:
        ConfigError: If one is not set.
    """
    if not isinstance(given, str):
        return given

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ConfigError(f"{given!r} needs the environment variable {found[1]}, which is not set")
        return os.environ[found[1]]

    return _VARIABLE.sub(value, given)


ConfigPath = Annotated[Path, BeforeValidator(_expand)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """``factory``: ``package.module:name`` or ``file.py:name``; ``weights``: safetensors, or a torch state dict."""

    factory: str
    weights: ConfigPath | None = None


class DataSection(_Section):
    """What `sekron_edge.data.load_source` and the task take.

    ``size`` is that of classified images, or of the crops that super-resolution gives. Normalisation and augmentation
    are classification's.
    """

    source: str
    path: ConfigPath | None = None
    size: int | None = Field(default=None, ge=1)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    augment_shift: int = Field(default=0, ge=0)
    augment_flip: bool = False
    calibration_samples: int = Field(default=512, ge=1)


class TargetSection(_Section):
    """The device, the runtime whose latency counts, and the formats to deliver.

    Attributes:
        profile: Id of a device profile, or path to a TOML file.
        runtime: Format whose latency is budgeted; by default the profile's.
        formats: Formats in the bundle, each in every precision of ``precisions`` that it can; by default the profile's.
        precisions: Of the artifacts; the first is what is planned and measured against the budgets.
        threads: That the runtime may use; by default the profile's.
        runs: Least number of timed runs.
        measured_on: Where the profile's device is reached, ``ssh:NAME`` or ``adb:NAME``: calibrated and measured there,
            plans rest on no estimates.
    """

    profile: str = "host"
    runtime: str | None = None
    formats: tuple[str, ...] | None = None
    precisions: tuple[Precision, ...] = Field(default=("fp32",), min_length=1)
    threads: int | None = Field(default=None, ge=1)
    runs: int = Field(default=50, ge=4)
    measured_on: str | None = None


class JobConfig(_Section):
    """One job of ``sekron-edge run``.

    Relative paths are from the config file's folder. ``train`` is used where the model has no weights; its result
    is cached, so that the next job with the same model, data and settings does not train again. ``seed`` decides
    everything random, also in training and fine-tuning. Without a budget the artifact takes half the dense one's time.
    """

    name: str
    task: Literal["classification", "super-resolution"] = "classification"
    seed: int = Field(default=0, ge=0)
    model: ModelSection
    data: DataSection
    target: TargetSection = TargetSection()
    budget: Budget = HALF_THE_TIME
    train: TrainConfig | None = None
    finetune: FinetuneConfig = FinetuneConfig()
    quantization: QuantizationConfig = QuantizationConfig()


def load_config(path: Path) -> JobConfig:
    """Read a job.

    Raises:
        ConfigError: If the file cannot be read, is no TOML, or has a key or value that does not fit; names the file,
            the key and the nearest valid key.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        config = JobConfig.model_validate(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_describe(found) for found in error.errors())) from error
    folder = path.resolve().parent
    model, data, target = config.model, config.data, config.target
    reference, _, name = model.factory.rpartition(":")
    if reference.endswith(".py"):
        model = model.model_copy(update={"factory": f"{folder / reference}:{name}"})
    if model.weights is not None:
        model = model.model_copy(update={"weights": folder / model.weights})
    if data.path is not None:
        data = data.model_copy(update={"path": folder / data.path})
    if target.profile.endswith(".toml"):
        target = target.model_copy(update={"profile": str(folder / target.profile)})
    return config.model_copy(update={"model": model, "data": data, "target": target})


def _describe(found: Any) -> str:
    where = ".".join(map(str, found["loc"]))
    if found["type"] != "extra_forbidden":
        return f"{where}: {found['msg']}, got {found['input']!r}"
    section: Any = JobConfig
    for part in found["loc"][:-1]:
        annotation = section.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(found["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"
