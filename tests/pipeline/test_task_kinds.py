"""A job's file names a kind of task, which decides what its data are; a kind of one's own is one module."""

from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from sekron_edge import task_kinds
from sekron_edge.data import ClassificationData, SuperResolutionData, softened_divergence
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline import JobConfig, load_config, load_task
from sekron_edge.task import Samples, Task
from sekron_edge.task_kinds import (
    ConfigPath,
    DataSection,
    TaskKind,
    get_task_kind,
    register_task,
    task_names,
)

LABELS = ("dark", "bright")
BUILT_IN = (
    "audio", "classification", "denoising", "detection", "regression", "segmentation", "super-resolution"
)  # fmt: skip


class Brightness(DataSection):
    """What the segmentation below reads."""

    images: int = Field(default=8, ge=1)
    masks: ConfigPath | None = None


def segmentation(section: Brightness, /, *, seed: int, cache: Path) -> Task:
    """Say of each pixel whether it is bright: two classes at each place."""
    drawn = torch.rand(section.images, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    samples = cast(Samples, TensorDataset(drawn, (drawn[:, 0] > 0.5).long()))
    return Task(
        name="brightness",
        train=samples,
        calibration=samples,
        heldout=samples,
        loss=F.cross_entropy,
        distillation=partial(softened_divergence, temperature=2.0),
        metric=partial(MulticlassAccuracy, num_classes=len(LABELS), average="micro"),
        metric_name="accuracy of pixels",
        labels=LABELS,
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_kinds._KINDS, "_registered", {})
    register_task(TaskKind("brightness", Brightness, segmentation))


def job(tmp_path: Path, task: str | None, *data: str) -> JobConfig:
    named = [] if task is None else [f'task = "{task}"']
    path = tmp_path / "job.toml"
    path.write_text("\n".join(['name = "job"', *named, "[model]", 'factory = "package:net"', "[data]", *data]))
    return load_config(path)


@pytest.mark.usefixtures("registered")
def test_a_registered_kind_is_loaded_from_a_jobs_file(tmp_path: Path) -> None:
    assert task_names() == sorted([*BUILT_IN, "brightness"])
    config = job(tmp_path, "brightness", "images = 3", 'masks = "masks"')
    assert config.data == Brightness(images=3, masks=tmp_path / "masks")
    task = load_task(config)
    outputs, targets = torch.randn(3, 2, 6, 6), task.heldout[0][1]
    assert [len(images) for images, _ in DataLoader(task.calibration, 8)] == [3]
    assert targets.shape == (6, 6)
    # The divergence is that of each place by itself, added up.
    single = sum(task.distillation(outputs[..., y, x], -outputs[..., y, x]) for y in range(6) for x in range(6))
    assert float(task.distillation(outputs, -outputs)) == pytest.approx(float(single), rel=1e-5)
    with pytest.raises(ConfigError, match="'brightness' exists"):
        register_task(TaskKind("brightness", Brightness, segmentation))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("brightness", "imges = 3", r"job\.toml: unknown key 'data\.imges'; did you mean 'images'"),
        ("brightness", "images = 0", r"data\.images: .*greater than or equal to 1, got 0"),
        (
            "super-resolution",
            'source = "photographs"\naugment_flip = true',
            r"'data\.augment_flip'; known keys: source,",
        ),
        (
            "segmentaton",
            "images = 3",
            r"task: .*'audio', 'brightness', 'classification', .*'super-resolution', or your own .*, got 'segmentat",
        ),
    ],
)
def test_each_kind_refuses_what_it_does_not_read(tmp_path: Path, task: str, data: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job(tmp_path, task, data)


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        (None, 'source = "photographs"', "belong together; got 'classification' and 'photographs'"),
        ("super-resolution", 'source = "digits"', "belong together; got 'super-resolution' and 'digits'"),
        (None, 'source = "digits"\nmean = [0.5]', r"data\.mean and data\.std belong together: give both, or neither"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, task: str | None, data: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(job(tmp_path, task, data))


def test_a_kind_that_nobody_knows_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=f"no kind of task 'tracking'; known kinds: {', '.join(BUILT_IN)}"):
        get_task_kind("tracking")


def test_trained_models_keep_their_names_in_the_cache() -> None:
    """As one section of both built-in kinds was once written down."""
    rest = "augment_flip=False, calibration_samples"
    assert (
        ClassificationData(source="digits", augment_shift=1).cache_key()
        == f"DataSection(source='digits', path=None, size=None, mean=None, std=None, augment_shift=1, {rest}=512)"
    )
    assert (
        SuperResolutionData(source="photographs", size=64, calibration_samples=128).cache_key()
        == f"DataSection(source='photographs', path=None, size=64, mean=None, std=None, augment_shift=0, {rest}=128)"
    )
    assert Brightness(images=3).cache_key() == "Brightness(images=3, masks=None)"
