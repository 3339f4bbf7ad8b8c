"""Jobs end to end for other tasks than classes of images; each on a little data."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from sekron_edge.bundle import Manifest, read_manifest, verify_bundle
from sekron_edge.data import unlabelled
from sekron_edge.pipeline import load_config, load_model, load_task, run_job
from sekron_edge.planner import LayerSelection
from sekron_edge.training import evaluate, train

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "examples" / "models"
DATA = Path(os.environ.get("SEKRON_EDGE_DATA", "absent"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="SEKRON_EDGE_DATA names no folder")


@pytest.fixture
def rough_calibration(calibrated: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated(tmp_path / "cache")
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))


def done(tmp_path: Path, task: str, model: str, data: str, *, training: str = "", **more: str) -> Manifest:
    """Run a job's file, and return what its bundle says; ``more`` are the keys of further sections, or of others."""
    path = tmp_path / "job.toml"
    sections = {
        "model": model, "data": data, "target": 'formats = ["litert"]\nruns = 4', "budget": 'macs = "0.7x"',
        "finetune": "epochs = 1\nthreads = 1",
    }  # fmt: skip
    sections |= {"train": training} if training else {}
    sections |= more
    text = "".join(f"[{name}]\n{keys}\n" for name, keys in sections.items())
    path.write_text(f'name = "job"\ntask = "{task}"\n{text}')
    bundle = run_job(load_config(path), tmp_path / "bundle").bundle
    assert verify_bundle(bundle).comparisons
    manifest = read_manifest(bundle)
    assert manifest.kept
    return manifest


@pytest.mark.slow
@pytest.mark.usefixtures("rough_calibration")
def test_segmentation(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 12)):
        for number in range(count):
            image = random.integers(0, 60, (24, 24, 3), dtype=np.uint8)
            mask = np.zeros((24, 24), np.uint8)
            top, left = random.integers(2, 12, 2)
            image[top : top + 9, left : left + 9] += 150
            mask[top : top + 9, left : left + 9] = 1
            for kind, pixels in (("images", image), ("masks", mask)):
                folder = tmp_path / "shapes" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    manifest = done(
        tmp_path,
        "segmentation",
        f'factory = "{MODELS}/segmenter.py:Segmenter"\nargs = {{ width = 4 }}',
        'path = "shapes"\nclasses = ["ground", "shape"]\ncalibration_samples = 24',
        training="epochs = 12\nlearning_rate = 0.05\nbatch_size = 8\nthreads = 1",
    )
    assert [spec.name for spec in manifest.outputs] == ["out"]
    assert manifest.score.dense > 0.8
    assert manifest.score.delivered > manifest.score.dense - 0.15


@needs_data
@pytest.mark.slow
@pytest.mark.usefixtures("rough_calibration")
def test_keyword_spotting_with_speakers_held_out(tmp_path: Path) -> None:
    # A tenth of the recordings: every speaker and digit, five of each.
    with zipfile.ZipFile(DATA / "spoken_digits.zip") as whole, zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        for name in whole.namelist():
            if int(Path(name).stem.rpartition("_")[2]) < 5:
                few.writestr(name, whole.read(name))
    manifest = done(
        tmp_path,
        "audio",
        f'factory = "{MODELS}/keywords.py:keyword_net"\nargs = {{ channels = 32, blocks = 2 }}',
        'path = "few.zip"\nnames = "{label}_{speaker}_{index}"\nheldout_speakers = ["theo"]\nrate = 8000\n'
        "seconds = 0.6\nfft = 256\nhop = 160\nmels = 24\nmean = -6.0\nstd = 3.0\ncalibration_samples = 64",
        training="epochs = 24\nlearning_rate = 0.05\nbatch_size = 16\nthreads = 1",
    )
    assert manifest.labels == tuple("0123456789")
    assert manifest.score.samples == 50
    assert manifest.score.dense > 0.2  # of ten classes, heard from a speaker that is in no training sample


@needs_data
@pytest.mark.slow
@pytest.mark.usefixtures("rough_calibration")
def test_denoising_with_a_pretrained_network(tmp_path: Path) -> None:
    data = f'path = "{DATA}/restoration.zip"\ntrain = "BSD68"\nheldout = "Set12"\ngives = "noise"\nsize = 16'
    manifest = done(
        tmp_path,
        "denoising",
        f'factory = "{MODELS}/dncnn.py:DnCNN"\nweights = "{DATA}/dncnn_sigma25.safetensors"',
        f"{data}\ncrops = 64\ncalibration_samples = 8",
        budget='macs = "0.96x"',
        plan='only = ["dncnn.17"]',  # one of fifteen alike
    )
    assert manifest.score.metric == "PSNR"
    assert manifest.score.dense > manifest.score.delivered > 20


@needs_data
def test_the_pretrained_networks_published_figure_is_reached(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        f'name = "x"\ntask = "denoising"\n[model]\nfactory = "{MODELS}/dncnn.py:DnCNN"\n[data]\n'
        f'path = "{DATA}/restoration.zip"\ntrain = "BSD68"\nheldout = "Set12"\ngives = "noise"\nsize = 128\n'
        "calibration_samples = 16\n"
    )
    task = load_task(load_config(path))
    model = load_model(f"{MODELS}/dncnn.py:DnCNN", DATA / "dncnn_sigma25.safetensors")
    # 30.4 dB on whole images of Set12 at sigma 25; these are crops of some.
    assert 28.5 < evaluate(model, task) < 33


def test_keypoints_are_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 96), ("test", 16)):
        (tmp_path / "spots" / split).mkdir(parents=True)
        rows = []
        for number, (x, y) in enumerate(random.integers(4, 20, (count, 2))):
            image = random.integers(0, 60, (24, 24, 3), dtype=np.uint8)
            image[y - 3 : y + 3, x - 3 : x + 3] += 150
            Image.fromarray(image).save(tmp_path / "spots" / split / f"{number}.png")
            rows.append(f"{number}.png,{x},{y}\n")
        (tmp_path / "spots" / split / "targets.csv").write_text("".join(rows))
    (tmp_path / "job.toml").write_text(
        'name = "job"\ntask = "regression"\n[model]\nfactory = "net:make"\n'
        '[data]\npath = "spots"\nkeypoints = "shares"\ncalibration_samples = 32\n'
        '[train]\nepochs = 16\noptimizer = "adam"\nlearning_rate = 0.01\nbatch_size = 16\nthreads = 1\n'
    )
    config = load_config(tmp_path / "job.toml")
    task = load_task(config)
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(400, 2))
    middle = evaluate(nn.Sequential(model, nn.Threshold(1e9, 0.5)), task)
    assert 0.15 < middle < 0.25  # of the diagonal, from the middle of the image
    assert evaluate(train(model, task, config=config.train, progress=False), task) < middle / 2


class Photographs(Dataset[Tensor]):
    """Photographs as the face detector takes them, read when they are needed."""

    def __init__(self, first: int, count: int) -> None:
        with zipfile.ZipFile(DATA / "imagenet_photos.zip") as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpeg"))[first : first + count]
            self.files = [archive.read(name) for name in names]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB").resize((320, 240))
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 127) / 128


@needs_data
@pytest.mark.slow
@pytest.mark.usefixtures("rough_calibration")
def test_a_face_detector_without_labels(tmp_path: Path) -> None:
    model = load_model(f"{MODELS}/ultraface.py:UltraFace", DATA / "ultraface_slim_320.safetensors")
    result: Any = se.compress(
        model,
        torch.zeros(1, 3, 240, 320),
        profile="host",
        task=unlabelled(Photographs(0, 8), calibration=Photographs(0, 4), heldout=Photographs(500, 4)),
        out=tmp_path / "bundle",
        formats=["litert"],
        budget=se.Budget(macs="0.9x"),
        runs=4,
        finetuning=se.FinetuneConfig(epochs=1, batch_size=8, threads=1),
        selection=LayerSelection(only=("base_net.?.3",)),
    )
    manifest = read_manifest(result.bundle)
    assert manifest.kept
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("scores", (1, 4420, 2)), ("boxes", (1, 4420, 4))]
    assert manifest.score.delivered > 0.5
    assert verify_bundle(result.bundle).comparisons
