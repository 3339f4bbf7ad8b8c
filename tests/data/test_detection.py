"""Objects: boxes in COCO's JSON, where preprocessing puts them; any heads; the metric is COCO's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.data import DetectionData, batch_of, detection
from sekron_edge.data._detection_data import DETECTION
from sekron_edge.errors import ConfigError, DataError, MissingDependencyError
from sekron_edge.pipeline import load_config, load_task
from sekron_edge.pytrees import PerSample
from sekron_edge.task import Task
from sekron_edge.task_kinds import Reference
from sekron_edge.training import FinetuneConfig, evaluate, finetune, train

pytest.importorskip("pycocotools", reason="pycocotools is not installed: the extra `detection` has it")

DECODE = '''
import torch
from beside import SCORE


def decode(outputs):
    """The bright region of each image is one object of category 7."""
    found = []
    for image in outputs["image"].mean(1):
        ys, xs = (image > 0.5).nonzero(as_tuple=True)
        if not len(xs):
            found.append({"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()})
            continue
        box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        found.append({"boxes": box[None], "scores": torch.tensor([SCORE]), "labels": torch.tensor([7])})
    return found


def fails(outputs):
    return outputs["boxes"]


def loss(outputs, targets):
    return sum(outputs["scores"].mean() * len(each["labels"]) for each in targets)


def nothing(outputs):
    return []


def crooked(outputs):
    return [{"boxes": torch.zeros(2, 4), "scores": torch.zeros(3), "labels": torch.zeros(2)} for _ in outputs["image"]]


THRESHOLD = 0.5
'''


class Head(nn.Module):
    """The image itself, and something else with another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"image": x, "scores": self.body(x).flatten(2).transpose(1, 2)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bright rectangles on black, of which no two images have as many; the last image has none."""
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("valid", 4)):
        (tmp_path / "data" / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            pixels = np.zeros((40, 60, 3), np.uint8)
            if number < count - 1:
                left, top = random.integers(4, 20, 2).tolist()
                width, height = random.integers(8, 16, 2).tolist()
                pixels[top : top + height, left : left + width] = 255
                bbox = [left, top, width, height]
                first = {"id": 2 * number, "image_id": number, "category_id": 7, "bbox": bbox, "iscrowd": 0}
                annotations.append(first)
            if number == 0:  # a second one, too dark to be found
                annotations.append({"id": 99, "image_id": 0, "category_id": 3, "bbox": [40, 20, 10.5, 10]})
            Image.fromarray(pixels).save(tmp_path / "data" / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 60, "height": 40})
        categories = [{"id": 3, "name": "dark"}, {"id": 7, "name": "bright"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (tmp_path / "data" / split / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "mine.py").write_text(DECODE)
    (tmp_path / "beside.py").write_text("SCORE = 0.9")
    return tmp_path


def load(folder: Path, **keys: Any) -> Task:
    keys = {"path": folder / "data", "decode": f"{folder}/mine.py:decode", **keys}
    return DETECTION.load(DetectionData.model_validate(keys), seed=0, cache=folder)


@pytest.mark.parametrize("keys", [{}, {"size": (20, 30)}, {"resize": 60, "crop": (56, 80)}])
def test_boxes_are_where_preprocessing_puts_them(folder: Path, keys: dict[str, Any]) -> None:
    task = load(folder, interpolation="nearest", **keys)
    assert [len(split) for split in (task.train, task.calibration, task.heldout)] == [5, 5, 4]  # type: ignore[arg-type]
    for index in range(4):
        image, target = task.train[index]
        ys, xs = (image[0] > 0.5).nonzero(as_tuple=True)
        bright = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        found = target["boxes"][target["labels"] == 7]
        torch.testing.assert_close(found, bright[None], atol=0.51, rtol=0)
    assert task.train[4][1]["boxes"].shape == (0, 4)


def test_what_is_cut_off_is_no_box(folder: Path) -> None:
    whole, cut = (load(folder, **keys).heldout[0][1] for keys in ({}, {"crop": (40, 36)}))
    assert whole["labels"].tolist() == [7, 3]
    torch.testing.assert_close(whole["boxes"][1], torch.tensor([40.0, 20, 50.5, 30]))
    torch.testing.assert_close(cut["boxes"][1], torch.tensor([28.0, 20, 36, 30]))  # what is left of it
    assert load(folder, crop=(40, 20)).heldout[0][1]["labels"].tolist() == [7]


def test_the_metric_is_cocos_and_targets_stay_one_by_one(folder: Path) -> None:
    task = load(folder)
    model = Head().eval()
    # All of category 7 are found exactly, and nothing of category 3: the mean over categories is a half.
    assert evaluate(model, task, batch_size=3) == pytest.approx(0.5)
    inputs, targets = batch_of(task.heldout, range(4))
    assert inputs.shape == (4, 3, 40, 60)
    assert [len(target["labels"]) for target in targets] == [2, 1, 1, 0]
    part = next(pytrees.batches(targets, 3))
    assert isinstance(part, PerSample)
    assert part[2]["boxes"].equal(targets[2]["boxes"])
    assert len(part) == 3
    metric = task.metric()
    metric.update(model(inputs), targets)
    metric.reset()
    metric.update(model(inputs[3:]), PerSample(targets[3:]))
    assert float(metric.compute()) == 0.0
    assert task.higher_is_better


def test_a_model_is_distilled_on_all_its_heads(folder: Path) -> None:
    task = load(folder)
    torch.manual_seed(0)
    teacher, student = Head(), Head()
    inputs, _ = batch_of(task.train, range(5))
    with torch.no_grad():
        before = float(task.distillation(student(inputs), teacher(inputs)))
    settings = FinetuneConfig(epochs=20, batch_size=5, learning_rate=0.01, threads=1)
    after = finetune(student, teacher, task, config=settings, progress=False)
    with torch.no_grad():
        assert float(task.distillation(after(inputs), teacher(inputs))) < 0.5 * before
    with pytest.raises(ConfigError, match="'detection' has no loss to train on: give the model's weights"):
        train(student, task, progress=False)


def test_decoder_and_loss_are_the_users_from_beside_the_jobs_file(folder: Path) -> None:
    (folder / "job.toml").write_text(
        'name = "job"\ntask = "detection"\n[model]\nfactory = "net:make"\n'
        '[data]\npath = "data"\ndecode = "mine.py:decode"\nloss = "mine:loss"\n'
    )
    config = load_config(folder / "job.toml")
    assert isinstance(config.data, DetectionData)
    assert config.data.decode == Reference(f"{folder}/mine.py:decode")
    task = load_task(config)
    _, targets = batch_of(task.heldout, range(4))
    assert task.loss is not None
    assert float(task.loss({"scores": torch.ones(1)}, targets)) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", r"mine\.py, line \d+: KeyError: 'boxes'"),
        ("nothing", r"scores \(n,\) and labels \(n,\) for each sample; for 4 samples it returned 0"),
        ("crooked", r"the shapes that it returned are {'boxes': \(2, 4\), 'scores': \(3,\), 'labels': \(2,\)}"),
        ("THRESHOLD", r"THRESHOLD is a float, not a function that is a decoder of boxes"),
        ("decoder", r"mine\.py has no 'decoder' to make a decoder of boxes with; did you mean 'decode'"),
    ],
)
def test_a_wrong_decoder_is_said_to_be_so(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(Head(), load(folder, decode=f"{folder}/mine.py:{name}"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"valid/annotations\.json must be COCO's JSON, .*; images is none"),
        ({"images": [{"id": 0, "file_name": "9.png"}]}, r"lists the image '9\.png', which is not in .*valid/"),
        ({"annotations": [{"id": 5, "image_id": 77}]}, r"annotation 5 of .* an image that the file lists; got 77"),
        ({"annotations": [{"id": 5, "image_id": 0, "category_id": 1}]}, r"a category that the file lists; got 1"),
        (
            {"annotations": [{"id": 5, "image_id": 0, "category_id": 3, "bbox": [1, 2, 0, 4]}]},
            r"annotation 5 of .* positive sides; got \[1, 2, 0, 4\]",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 0, "category_id": 3, "bbox": [1, 2, float("nan"), 4]}]},
            r"positive sides; got \[1, 2, nan, 4\]",
        ),
        ({"annotations": []}, r"held-out images in .* must have boxes to judge a model by"),
    ],
)
def test_wrong_annotations_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    file = folder / "data" / "valid" / "annotations.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(DataError, match=message):
        load(folder)


def test_a_file_that_is_no_json_or_not_there_is_named(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"must hold boxes-train\.json .*data\.annotations names the file, with {split}"
    ):
        load(folder, annotations="boxes-{split}.json")
    (folder / "data" / "train" / "annotations.json").write_text("{")
    with pytest.raises(DataError, match=r"train/annotations\.json cannot be read as JSON"):
        load(folder)


def test_the_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(MissingDependencyError, match=r"sekron-edge\[detection\]"):
        detection([], [], [], decode=list)  # type: ignore[arg-type]
