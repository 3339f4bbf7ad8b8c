"""Boxes of images in COCO's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sekron_edge.data._files import FileTree
from sekron_edge.errors import DataError


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image, in pixels of its file.

    Attributes:
        boxes: float32 ``(n, 4)``: left, top, right and bottom.
        labels: int64 ``(n,)``: ids of categories.
        crowd: bool ``(n,)``: whether a box holds many objects, of which finding any number is right.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor


def read_coco(tree: FileTree, name: str, folder: str) -> dict[str, Boxes]:
    """Return the boxes of each image that a JSON file lists, by the image's name in the tree.

    Args:
        tree: Holds the JSON file and the images.
        name: Of the JSON file in the tree.
        folder: From which the file names its images, with a ``/`` at its end, or empty.

    Raises:
        DataError: If the file is not COCO's JSON, or lists an image that is not there, or a box that is none, of no
            image or of no category; names it.
    """
    shown = tree.shown(name)
    try:
        content = json.loads(tree.read(name))
    except ValueError as error:
        raise DataError(f"{shown} cannot be read as JSON: {error}") from error
    images, annotations, categories = (_listed(content, key, shown) for key in ("images", "annotations", "categories"))
    known = {category.get("id") for category in categories}
    present = set(tree.names)
    found: dict[Any, tuple[str, list[tuple[list[float], int, bool]]]] = {}
    for image in images:
        file = f"{folder}{image.get('file_name')}"
        if file not in present:
            raise DataError(f"{shown} lists the image {image.get('file_name')!r}, which is not in {tree.shown(folder)}")
        found[image.get("id")] = file, []
    for annotation in annotations:
        which = f"annotation {annotation.get('id')} of {shown}"
        if annotation.get("image_id") not in found:
            raise DataError(f"{which} must be of an image that the file lists; got {annotation.get('image_id')!r}")
        if annotation.get("category_id") not in known:
            raise DataError(f"{which} must be of a category that the file lists; got {annotation.get('category_id')!r}")
        box = _corners(annotation.get("bbox"), which)
        _, boxes = found[annotation["image_id"]]
        boxes.append((box, annotation["category_id"], bool(annotation.get("iscrowd", 0))))
    return {
        file: Boxes(
            torch.tensor([box for box, _, _ in boxes], dtype=torch.float32).view(-1, 4),
            torch.tensor([label for _, label, _ in boxes], dtype=torch.int64),
            torch.tensor([crowd for _, _, crowd in boxes], dtype=torch.bool),
        )
        for file, boxes in found.values()
    }


def _listed(content: Any, key: str, shown: str) -> list[Mapping[str, Any]]:
    listed = content.get(key) if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise DataError(f"{shown} must be COCO's JSON, with lists of images, annotations and categories; {key} is none")
    return listed


def _corners(bbox: Any, which: str) -> list[float]:
    are_numbers = isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(value, int | float) for value in bbox)
    if not are_numbers or not all(map(math.isfinite, bbox)) or min(bbox[2:]) <= 0:
        raise DataError(f"{which} must have a bbox [left, top, width, height] with positive sides; got {bbox!r}")
    left, top, width, height = bbox
    return [left, top, left + width, top + height]
