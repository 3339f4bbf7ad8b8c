"""Photographs, their crops, and the task of enlarging them."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.data import CropPairs, Photographs, photographs, super_resolution
from sekron_edge.errors import DataError
from sekron_edge.training import evaluate

MODEL = Path(__file__).parents[2] / "examples" / "models" / "edsr.py"


class Nearest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2)


class Bicubic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="bicubic")


def test_held_out_photographs_are_other_photographs() -> None:
    found = photographs()
    assert len(found.train) >= 4
    assert len(found.heldout) >= 2
    for image in (*found.train, *found.heldout):
        assert image.dtype == torch.uint8
        assert image.shape[0] == 3
    assert not any(a.shape == b.shape and a.equal(b) for a in found.train for b in found.heldout)


def test_crops_are_pairs_on_a_grid_or_at_random() -> None:
    image = torch.arange(3 * 40 * 48, dtype=torch.int64).remainder(256).to(torch.uint8).reshape(3, 40, 48)
    fixed = CropPairs([image], 4, crop=16)
    small, large = fixed[3]
    assert small.shape == (3, 8, 8)
    assert large.shape == (3, 16, 16)
    assert large.equal(fixed[3][1])
    assert small.min() >= 0
    assert small.max() <= 1
    random = CropPairs([image], 4, crop=16, random=True)
    state = torch.random.get_rng_state()
    first = random.__getitems__([0, 1, 2, 3])[1]
    assert not first.equal(random.__getitems__([0, 1, 2, 3])[1])
    torch.random.set_rng_state(state)
    assert first.equal(random.__getitems__([0, 1, 2, 3])[1])


def test_what_cannot_be_cropped_is_refused(tmp_path: Path) -> None:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    with pytest.raises(DataError, match="at least 32 pixels high and wide; one has 30x20"):
        CropPairs([image], 1, crop=32)
    with pytest.raises(DataError, match="multiple of the scale; got 15 and 2"):
        CropPairs([image], 1, crop=15)
    with pytest.raises(DataError, match="must hold photographs, in train/ and in test/"):
        photographs(tmp_path)


def test_a_folder_of_ones_own_is_read_and_a_broken_image_named(tmp_path: Path) -> None:
    for split, red in (("train", 200), ("test", 201)):
        (tmp_path / split).mkdir()
        Image.new("RGB", (48, 40), (red, 10, 10)).save(tmp_path / split / "a.png")
    found = photographs(tmp_path)
    assert found.train[0].shape == (3, 40, 48)
    (tmp_path / "test" / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.jpg is not a readable image"):
        list(photographs(tmp_path).heldout)


def test_better_enlargements_score_higher() -> None:
    data = photographs()
    limits: dict[Literal["psnr", "ssim"], float] = {"psnr": 20.0, "ssim": 0.7}
    for metric, least in limits.items():
        task = super_resolution(data, metric=metric, calibration_samples=32)
        scores = [evaluate(model, task) for model in (Nearest(), Bicubic())]
        assert least < scores[0] < scores[1]


@pytest.mark.slow
def test_a_network_that_enlarges_is_compressed_like_the_rest(
    calibrated: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calibrated(tmp_path / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))
    images = photographs()
    task = super_resolution(
        Photographs(images.train[:1], images.heldout[:1]), crop=32, crops=64, calibration_samples=16
    )
    torch.manual_seed(0)
    model = runpy.run_path(str(MODEL))["EDSR"](channels=16, blocks=1).eval()
    done = se.compress(
        model,
        (task.calibration[0][0][None],),
        profile="host",
        task=task,
        out=tmp_path / "out",
        budget=se.Budget(macs="0.6x"),
        formats=["litert"],
        runs=5,
        finetuning=se.TrainConfig(optimizer="adam", epochs=1, batch_size=16, learning_rate=1e-3, weight_decay=0),
    )
    assert done.manifest.score.unit == "dB"
    (delivery,) = done.manifest.deliveries
    assert delivery.check is not None
    assert delivery.check.real.agreement is None
    assert delivery.artifact.outputs[0].shape == (1, 32, 32, 3)
    spoken = subprocess.run(
        [sys.executable, "-W", "ignore", str(done.bundle / delivery.snippet)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert spoken.stdout.strip().endswith("(1, 32, 32, 3)")
    assert " dB</td>" in (done.bundle / "report.html").read_text()
