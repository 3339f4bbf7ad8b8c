"""A job's task may be the user's own, by reference; what is wrong with it is said once, with their file and line."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline import JobConfig, load_config, load_task, run_job
from tests.narrowing import present

TASK = '''
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from torchmetrics import MeanSquaredError

import sekron_edge as se
from beside import SHAPE
from sekron_edge.task_kinds import DataSection, TaskKind


class Noise(Dataset):
    """Images, and their means."""

    def __init__(self, samples, seed):
        self.images = torch.rand(samples, *SHAPE, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.images[index].mean((1, 2))


def task(path: Path, seed: int, samples: int = 16, names: tuple[str, ...] = (), extra=None) -> se.Task:
    train = Noise(samples, seed)
    return se.Task(
        name=f"{path.name} {names} {extra}", train=train, calibration=train, heldout=Noise(8, seed + 1),
        loss=F.mse_loss, distillation=F.mse_loss, metric=MeanSquaredError, metric_name="error", metric_unit="",
    )


def open_task(**settings):
    return task(Path("any"), 0, names=tuple(sorted(settings)))


class Section(DataSection):
    samples: int = 4


KIND = TaskKind("own", Section, lambda section, /, *, seed, cache: task(Path("kind"), seed, samples=section.samples))


def broken_sample(path: Path) -> se.Task:
    made = task(path, 0)
    made.train.__class__ = Broken
    return made


class Broken(Noise):
    def __getitem__(self, index):
        return {}[index]


def no_task(path: Path):
    return path


def raises(path: Path):
    raise ValueError("the camera is off")


def unknown(path: "Camera"): ...


def hidden(copy: int): ...


def callback(camera: torch.dtype | None = None): return camera


class Camera: ...


NUMBER = 3
'''
NET = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 3))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(textwrap.dedent(TASK))
    (tmp_path / "beside.py").write_text("SHAPE = (3, 8, 8)")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def job(folder: Path, task: str, *data: str, rest: str = "") -> JobConfig:
    text = ['name = "job"', f'task = "{task}"', "[model]", 'factory = "net.py:make"', "[data]", *data, rest]
    (folder / "job.toml").write_text("\n".join(text))
    return load_config(folder / "job.toml")


def test_the_keys_of_data_are_the_functions_arguments(folder: Path) -> None:
    config = job(folder, "mine.py:task", 'path = "sub"', "samples = 4", 'names = ["a", "b"]')
    assert dict(config.data)["path"] == folder / "sub"
    task = load_task(config)
    assert task.name == "sub ('a', 'b') None"
    assert len(task.train) == 4  # type: ignore[arg-type]
    torch.testing.assert_close(task.heldout[0][1], task.heldout[0][0].mean((1, 2)))
    # As a module that is only in the job's folder, and one that was loaded before.
    assert load_task(job(folder, "mine:task", 'path = "sub"')).name == "sub () None"


def test_any_keys_or_a_kind_of_task(folder: Path) -> None:
    assert load_task(job(folder, "mine.py:open_task", "left = 1", "right = [2]")).name == "any ('left', 'right') None"
    assert len(load_task(job(folder, "mine.py:KIND", "samples = 5")).train) == 5  # type: ignore[arg-type]


def test_a_trained_model_is_of_the_file_that_makes_the_task(folder: Path) -> None:
    before = job(folder, "mine.py:task", 'path = "sub"').data.cache_key()
    assert before == job(folder, "mine.py:task", 'path = "sub"').data.cache_key()
    assert before != job(folder, "mine.py:task", 'path = "other"').data.cache_key()
    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "\n# another loss\n")
    assert before != job(folder, "mine.py:task", 'path = "sub"').data.cache_key()


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ("absent.py:task", "", r"there is no file .*absent\.py to make a task from"),
        ("mine.py:tsk", "", r"mine\.py has no 'tsk' to make a task with; did you mean 'task'"),
        ("mine.py:", "", r"a task must be 'package\.module:name' or 'file\.py:name', got"),
        ("mine.py:NUMBER", "", r"NUMBER is a int: name a function that returns a sekron_edge\.Task, or a TaskKind"),
        ("mine.py:task", "", r"job\.toml: data\.path: Field required"),
        ("mine.py:task", 'path = "a"\nsample = 3', r"unknown key 'data\.sample'; did you mean 'samples'"),
        ("mine.py:task", 'path = "a"\nseed = 3', r"unknown key 'data\.seed'; known keys: path, samples, names, extra"),
        ("mine.py:task", 'path = "a"\nsamples = "many"', r"data\.samples: .*valid integer.*, got 'many'"),
        ("mine.py:task", 'path = "${NOWHERE_SET}"', r"NOWHERE_SET, which is not set"),
        ("mine.py:KIND", "samples = 3\nsize = 2", r"unknown key 'data\.size'; known keys: samples"),
        ("mine.py:no_task", 'path = "a"', r"mine\.py:no_task must return a sekron_edge\.Task; it returned \w*Path"),
        ("mine.py:raises", 'path = "a"', r"mine\.py, line 63: making the task: ValueError: the camera is off"),
        ("mine.py:hidden", "copy = 3", r"argument 'copy', which no key of \[data\] can be: choose another name"),
        ("mine.py:callback", 'camera = "x"', r"data\.camera: .*instance of dtype, got 'x'"),
        ("segmentaton", "", r"task: .*'segmentation', 'super-resolution', or your own as 'mine\.py:task', got"),
    ],
)
def test_what_is_wrong_is_said_once(folder: Path, task: str, data: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(job(folder, task, data))


@pytest.mark.slow
def test_a_job_with_a_task_of_ones_own(
    folder: Path, calibrated: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated(folder / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(folder / "cache"))
    rest = """
        [target]
        formats = ["litert"]
        runs = 4
        [budget]
        macs = "0.8x"
        accuracy_drop = 1.0
        [train]
        epochs = 4
        threads = 1
        [finetune]
        epochs = 1
        threads = 1
    """
    bundle = run_job(job(folder, "mine.py:task", 'path = "noise"', rest=rest), folder / "bundle").bundle
    manifest = read_manifest(bundle)
    assert manifest.kept
    assert (manifest.task, manifest.score.metric, manifest.score.higher_is_better) == ("noise () None", "error", False)
    artifact = present(manifest.deliveries[0].score)
    assert [result.found for result in manifest.results] == [manifest.delivered.macs, artifact - manifest.score.dense]
    assert verify_bundle(bundle).comparisons
    with pytest.raises(ConfigError, match=r"mine\.py, line 55: KeyError: 0"):
        run_job(job(folder, "mine.py:broken_sample", 'path = "noise"', rest=rest), folder / "other")
