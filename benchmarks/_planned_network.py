"""One network, planned from nothing in a process of its own, for `benchmarks.planning`."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from benchmarks._networks import detector, efficientnet_lite0, mobilenet_v2, resnet50, unet, vgg_like
from sekron_edge.data import photographs
from sekron_edge.planner import Plan

SMALL = "VGG-like"
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "MobileNetV2": (mobilenet_v2, 224),
    "EfficientNet-Lite0": (efficientnet_lite0, 224),
    "ResNet-50": (resnet50, 224),
    "U-Net": (unet, 256),
    "YOLOv8n-like": (detector, 320),
    SMALL: (vgg_like, 64),
}
_IMAGES, _SETTLED_ON = 256, 32


def main() -> None:
    """Plan the network named by the first argument for the budget of the second; write a row to the third."""
    name, budget, path = sys.argv[1:]
    make, side = NETWORKS[name]
    images = _Squares(_photographs(), side)
    model = _as_trained(make(), torch.stack([images[index] for index in range(_SETTLED_ON)]))
    watch = _Watch()
    wanted = se.Budget.model_validate({"latency_ms": budget})
    task = se.unlabelled(images)
    plan = se.plan(model, images[0][None], "host", task=task, budget=wanted, runtime="litert", progress=watch)
    Path(path).write_text(json.dumps({"network": f"{name}@{side}", **watch.row(), **_described(plan)}))


class _Squares(Dataset[Tensor]):
    """Photographs, cropped to squares and shrunk."""

    def __init__(self, whole: Sequence[Tensor], side: int) -> None:
        self._whole, self._side = whole, side

    def __len__(self) -> int:
        return _IMAGES

    def __getitem__(self, index: int) -> Tensor:
        image = self._whole[index % len(self._whole)]
        size = min(image.shape[1:])
        top, left = ((extent - size) // 2 for extent in image.shape[1:])
        square = image[None, :, top : top + size, left : left + size].float() / 255
        shrunk = F.interpolate(square, (self._side, self._side), mode="bilinear", antialias=True)
        return (shrunk[0] - 0.45) / 0.23


def _photographs() -> Sequence[Tensor]:
    held = Path(os.environ.get("SEKRON_EDGE_DATA", "")) / "imagenet_photos.zip"
    return photographs(held).heldout if held.is_file() else photographs().train


def _as_trained(model: nn.Module, images: Tensor) -> nn.Module:
    """Give weights falling spectra, singular value k that of the first over sqrt(k), and batch norms statistics."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            matrix = torch.randn_like(layer.weight).flatten(1)
            left, values, right = torch.linalg.svd(matrix, full_matrices=False)
            falling = left * torch.arange(1, len(values) + 1) ** -0.5 @ right
            scale = (2 / matrix.shape[1]) ** 0.5 / falling.std()
            layer.weight.data = (falling * scale).reshape(layer.weight.shape)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        model(images)
    return model.eval()


class _Watch:
    """Prints progress, and keeps the times at which phases ended."""

    interactive = False

    def __init__(self) -> None:
        self._start, self._processor = time.perf_counter(), time.process_time()
        self._ended: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print it with the time."""
        print(f"{self._seconds():6.0f} s  {text}", flush=True)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Print it."""
        self.say(what)
        yield

    def step(self, what: str, done: int, total: int) -> None:
        """Note when a phase of steps ended."""
        if done == total:
            self._ended[f"{what}, until s"] = self._seconds()

    def row(self) -> dict[str, float]:
        """Return all seconds, those of processors, and the peak."""
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {
            "s": self._seconds(), "processor s": time.process_time() - self._processor, "peak GiB": gib, **self._ended
        }  # fmt: skip

    def _seconds(self) -> float:
        return time.perf_counter() - self._start


def _described(plan: Plan) -> dict[str, float | None]:
    return {
        "candidates": sum(layer.candidates for layer in plan.layers),
        "share of MACs": plan.cost.macs / plan.dense.macs,
        "divergence": plan.divergence,
    }


if __name__ == "__main__":
    main()
