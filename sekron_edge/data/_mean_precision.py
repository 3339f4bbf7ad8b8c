"""Mean average precision of boxes, as COCO defines it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sekron_edge.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import torchmetrics

Decode = Callable[[Any], Sequence[Mapping[str, Tensor]]]
"""Makes boxes of a model's outputs, any pytree: for each sample a dict of ``boxes``, ``scores`` and ``labels``."""

_DECODED = {"boxes": (4,), "scores": (), "labels": ()}


def require_pycocotools() -> None:
    """Refuse to go on without the package that computes the metric.

    Raises:
        MissingDependencyError: If it is absent.
    """
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("pycocotools", "detection") from error


def mean_average_precision(decode: Decode) -> torchmetrics.Metric:
    """Return a metric of a model's outputs and boxes: COCO's mAP, the mean over IoU 0.50 to 0.95, in [0, 1].

    Args:
        decode: Its boxes are ``(n, 4)``, left, top, right and bottom in pixels of the model's input; scores ``(n,)``;
            labels int ``(n,)``, as in the targets.
    """
    import torchmetrics

    class MeanAveragePrecision(torchmetrics.Metric):
        """Keeps all boxes, and compares them at the end."""

        higher_is_better = True

        def __init__(self) -> None:
            super().__init__()
            self._found: list[Mapping[str, Tensor]] = []
            self._wanted: list[Mapping[str, Tensor]] = []

        def update(self, outputs: Any, targets: Sequence[Mapping[str, Tensor]]) -> None:
            """Keep a batch."""
            self._found += decoded(decode, outputs, len(targets))
            self._wanted += targets

        def compute(self) -> Tensor:
            """Return the mean over categories that have boxes; 0 where there are none."""
            return torch.tensor(_precision(self._found, self._wanted))

        def reset(self) -> None:
            """Forget all batches."""
            super().reset()
            self._found, self._wanted = [], []

    return MeanAveragePrecision()


def decoded(decode: Decode, outputs: Any, samples: int) -> list[Mapping[str, Tensor]]:
    """Return what a decoder makes of outputs.

    Raises:
        ConfigError: If it is not one dict of boxes, scores and labels for each sample.
    """
    found = decode(outputs)
    form = "decode must return a dict of boxes (n, 4), scores (n,) and labels (n,) for each sample"
    if not isinstance(found, Sequence) or len(found) != samples:
        count = len(found) if isinstance(found, Sequence) else type(found).__name__
        raise ConfigError(f"{form}; for {samples} samples it returned {count}")
    for each in found:
        given = each if isinstance(each, Mapping) else {}
        values = [given.get(key) for key in _DECODED]
        shapes = [tuple(value.shape) if isinstance(value, Tensor) else None for value in values]
        counts = {None if shape is None else shape[:1] for shape in shapes}
        if len(counts) > 1 or [None if s is None else s[1:] for s in shapes] != list(_DECODED.values()):
            raise ConfigError(f"{form}; the shapes that it returned are {dict(zip(_DECODED, shapes, strict=True))}")
    return list(found)


def _precision(found: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]]) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths: list[dict[str, Any]] = [
        {"image_id": image, "category_id": int(label), "bbox": _sides(box), "area": _area(box), "iscrowd": int(crowd)}
        for image, boxes in enumerate(wanted)
        for box, label, crowd in zip(
            boxes["boxes"], boxes["labels"], boxes.get("crowd", torch.zeros(len(boxes["labels"]))), strict=True
        )
    ]
    guesses: list[dict[str, Any]] = [
        {"image_id": image, "category_id": int(label), "bbox": _sides(box), "area": _area(box), "score": float(score)}
        for image, boxes in enumerate(found)
        for box, label, score in zip(boxes["boxes"], boxes["labels"], boxes["scores"], strict=True)
    ]
    if not truths or not guesses:
        return 0.0
    categories = sorted({truth["category_id"] for truth in truths} | {guess["category_id"] for guess in guesses})
    sides = []
    with redirect_stdout(io.StringIO()):  # it prints what it does
        for boxes in (truths, guesses):
            side = COCO()
            side.dataset = {
                "images": [{"id": image} for image in range(len(wanted))],
                "categories": [{"id": category} for category in categories],
                # Ids begin with 1: 0 would count as no match.
                "annotations": [{"iscrowd": 0, **box, "id": number} for number, box in enumerate(boxes, 1)],
            }
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return max(float(evaluation.stats[0]), 0.0)


def _sides(box: Tensor) -> list[float]:
    left, top, right, bottom = box.tolist()
    return [left, top, right - left, bottom - top]


def _area(box: Tensor) -> float:
    _, _, width, height = _sides(box)
    return width * height
