"""Boxes of images in COCO's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sekron_edge.data._files import FileTree
from sekron_edge.documents import parsed_json
from sekron_edge.errors import DataError

_INTEGERS = range(-(1 << 63), 1 << 63)
# Pixels: sums and areas of such are exact enough in float32.
_FARTHEST = 1e9
# Characters of a value in a message.
_LONGEST = 200


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
    content = parsed_json(tree.read(name), shown, DataError)
    images, annotations, categories = (_listed(content, key, shown) for key in ("images", "annotations", "categories"))
    known = {_category(category.get("id"), f"a category of {shown}") for category in categories}
    present = set(tree.names)
    found: dict[Any, tuple[str, list[tuple[list[float], int, bool]]]] = {}
    for image in images:
        file = f"{folder}{image.get('file_name')}"
        if file not in present:
            raise DataError(
                f"{shown} lists the image {_shown(image.get('file_name'))}, which is not in {tree.shown(folder)}"
            )
        if not isinstance(image.get("id"), int | float | str):
            raise DataError(
                f"the image {_shown(image.get('file_name'))} of {shown} must have an id; got {_shown(image.get('id'))}"
            )
        found[image["id"]] = file, []
    for annotation in annotations:
        which = f"annotation {annotation.get('id')} of {shown}"
        image_id = annotation.get("image_id")
        if not isinstance(image_id, int | float | str) or image_id not in found:
            raise DataError(f"{which} must be of an image that the file lists; got {_shown(image_id)}")
        category = _category(annotation.get("category_id"), which)
        if category not in known:
            raise DataError(f"{which} must be of a category that the file lists; got {_shown(category)}")
        _, boxes = found[image_id]
        boxes.append((_corners(annotation.get("bbox"), which), category, bool(annotation.get("iscrowd", 0))))
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


def _category(value: Any, which: str) -> int:
    """Return an id of a category, which models' outputs are compared with: it is an integer of 64 bits."""
    if not isinstance(value, int) or value not in _INTEGERS:
        raise DataError(f"{which} must have an integer of at most 64 bits as the category's id; got {_shown(value)}")
    return value


def _corners(bbox: Any, which: str) -> list[float]:
    are_numbers = isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(value, int | float) for value in bbox)
    # Compared, since an integer may be too large for a float; not a number is below nothing.
    if not are_numbers or not all(abs(value) < _FARTHEST for value in bbox) or min(bbox[2:]) <= 0:
        raise DataError(f"{which} must have a bbox [left, top, width, height] with positive sides; got {_shown(bbox)}")
    left, top, width, height = bbox
    return [left, top, left + width, top + height]


def _shown(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
