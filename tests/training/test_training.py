"""Training, distillation, resuming and evaluation."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanSquaredError

from sekron_edge.data import classification, digits
from sekron_edge.errors import ConfigError
from sekron_edge.task import Task
from sekron_edge.training import (
    CHECKPOINT_NAME,
    TrainConfig,
    calibration_batches,
    evaluate,
    finetune,
    reestimate_batch_norm,
    train,
)
from tests.narrowing import layer_at, present

MODELS = Path(__file__).parents[2] / "examples" / "models"

RUN = """
import sys, torch
from pathlib import Path
from sekron_edge.data import classification, digits
from sekron_edge.training import TrainConfig, finetune
import runpy
make = runpy.run_path(sys.argv[1])["digits_cnn"]
torch.manual_seed(0)
student, teacher = make(), make()
task = classification(digits(), augment_shift=1, augment_flip=True, calibration_samples=64)
config = TrainConfig(epochs=5, seed=3, threads=1, patience=4)
small = finetune(student, teacher, task, config=config, checkpoints=Path(sys.argv[2]), resume=True, progress=False)
torch.save(small.state_dict(), sys.argv[3])
"""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model: nn.Module = runpy.run_path(str(MODELS / "digits_cnn.py"))["digits_cnn"]()
    return model


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_and_distillation_follows_and_inputs_stay() -> None:
    task = classification(digits())
    start = make_model()
    before = state(start)
    random_state = torch.random.get_rng_state()
    trained = train(start, task, config=TrainConfig(epochs=4), progress=False)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert same(before, state(start))
    assert evaluate(trained, task) > 0.93
    teacher = state(trained)
    student = make_model(1)
    small = finetune(student, trained, task, config=TrainConfig(epochs=8), progress=False)
    assert same(teacher, state(trained))
    assert not small.training
    assert evaluate(small, task) > 0.9


def test_killed_and_resumed_run_is_bit_identical(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "run.py"
    program.write_text(RUN)

    def command(name: str) -> list[str]:
        return [str(program), str(MODELS / "digits_cnn.py"), str(tmp_path / name), str(tmp_path / f"{name}.pt")]

    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *command(name)])

    killed = start("killed")
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "killed" / CHECKPOINT_NAME).exists():
            assert killed.poll() is None, "the run ended before a checkpoint appeared"
            assert time.monotonic() < until, "no checkpoint appeared"
            time.sleep(0.002)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    assert not (tmp_path / "killed.pt").exists()
    assert start("killed").wait(timeout=120) == 0
    monkeypatch.setattr(sys, "argv", command("whole"))
    runpy.run_path(str(program))
    weights = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("killed", "whole")]
    assert same(*weights)


def test_resuming_a_finished_run_returns_it_and_other_settings_are_refused(tmp_path: Path) -> None:
    task = classification(digits(), augment_shift=1)
    options: dict[str, Any] = {"checkpoints": tmp_path, "progress": False}
    config = TrainConfig(epochs=1)
    first = train(make_model(), task, config=config, **options)
    again = train(make_model(5), task, config=config, resume=True, **options)
    assert same(state(first), state(again))
    with pytest.raises(ConfigError, match="same"):
        train(make_model(), task, config=TrainConfig(epochs=2), resume=True, **options)


def test_loss_that_is_not_finite_is_refused() -> None:
    model = make_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ConfigError, match=r"epoch 0, step 0, at learning rate"):
        train(model, classification(digits()), config=TrainConfig(epochs=1), progress=False)


def test_early_stop_uses_the_calibration_data(tmp_path: Path) -> None:
    task = classification(digits(), calibration_samples=50)
    config = TrainConfig(epochs=30, learning_rate=1e-9, weight_decay=0, patience=1, batch_size=1437)
    train(make_model(), task, config=config, checkpoints=tmp_path, progress=False)
    saved = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    assert saved["sekron_edge"]["epochs"] < 30


@pytest.mark.parametrize(("higher_is_better", "epochs"), [(True, 2), (False, 5)])
def test_early_stop_goes_in_the_metrics_better_direction(tmp_path: Path, higher_is_better: bool, epochs: int) -> None:
    class Error(MeanSquaredError):  # type: ignore[misc, unused-ignore]
        pass

    Error.higher_is_better = higher_is_better
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    samples: Any = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    task = Task(
        name="sums", train=samples, calibration=samples, heldout=samples, loss=F.mse_loss, distillation=F.mse_loss,
        metric=Error, metric_name="error", metric_unit="",
    )  # fmt: skip
    torch.manual_seed(0)
    config = TrainConfig(epochs=5, learning_rate=1e-3, optimizer="adam", patience=1)
    train(nn.Linear(3, 1), task, config=config, checkpoints=tmp_path, progress=False)  # the error falls in each epoch
    saved = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    assert saved["sekron_edge"]["epochs"] == epochs


def test_batch_norm_is_computed_anew_on_a_copy() -> None:
    task = classification(digits(), calibration_samples=100)
    model = make_model().eval()
    before = state(model)
    fresh = reestimate_batch_norm(model, calibration_batches(task))
    assert same(before, state(model))
    norm = layer_at(fresh, "1", nn.BatchNorm2d)
    inputs = torch.stack([task.calibration[i][0] for i in range(100)])
    assert torch.allclose(present(norm.running_mean), model.get_submodule("0")(inputs).mean((0, 2, 3)), atol=1e-5)
    assert not any(module.training for module in fresh.modules())
    assert norm.momentum == layer_at(model, "1", nn.BatchNorm2d).momentum


def test_unknown_split_and_setting_are_refused() -> None:
    with pytest.raises(ConfigError, match="split"):
        evaluate(make_model(), classification(digits()), split="test")
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        TrainConfig(epoch=3)  # type: ignore[call-arg]


@pytest.mark.slow
def test_published_resnet20_reaches_its_baseline(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from sekron_edge.data import image_folder
    from sekron_edge.task import Normalization

    folder = os.environ.get("SEKRON_EDGE_DATA")
    if not folder:
        pytest.skip("SEKRON_EDGE_DATA names no folder with CIFAR-10")
    model = runpy.run_path(str(MODELS / "resnet_cifar.py"))["resnet20"]()
    model.load_state_dict(load_file(Path(folder) / "resnet20_cifar10_jpeg.safetensors"))
    data = image_folder(_without_training_images(Path(folder) / "cifar10_jpeg.zip", tmp_path / "heldout.zip"))
    task = classification(data, normalization=Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert evaluate(model, task) == pytest.approx(0.8827, abs=5e-4)


def _without_training_images(whole: Path, path: Path) -> Path:
    """Copy the held-out images, and one of each class to train on: the others need not be decoded."""
    with zipfile.ZipFile(whole) as images, zipfile.ZipFile(path, "w") as chosen:
        for name in images.namelist():
            if name.startswith("test/") or name.endswith("/0000.jpg"):
                chosen.writestr(name, images.read(name))
    return path


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    task = classification(digits())
    teacher = train(make_model(), task, config=TrainConfig(epochs=4), progress=False)
    seen: list[torch.dtype] = []
    student = make_model(1)
    student.register_forward_hook(
        lambda module, inputs, outputs: seen.append(outputs.dtype) if module.training else None
    )
    small = finetune(student, teacher, task, config=TrainConfig(epochs=8, precision="bf16"), progress=False)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in small.parameters()} == {torch.float32}
    assert evaluate(small, task) > 0.9
