"""What networks of the zoo are calibrated and verified on: photographs, each another one where there are enough."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sekron_edge.data import Crops, photographs

_ARCHIVE = "imagenet_photos.zip"
_CROP = 192  # pixels, of the few photographs that packages ship


def images(shape: tuple[int, int, int], count: int) -> Tensor:
    """Return different images ``(count, *shape)`` for a network that takes ``(channels, height, width)``.

    They are the centres of photographs in ``imagenet_photos.zip``, in the folder that the variable
    ``SEKRON_EDGE_DATA`` names; without it, places in the photographs of scikit-learn and scikit-image. Values are
    ``(x - 0.5) / 0.25`` of ``x`` in [0, 1]; one channel is the mean of three.
    """
    channels, *size = shape
    chosen = [F.interpolate(each[None].float() / 255, size, mode="area") for each in _squares(count)]
    found = (torch.cat(chosen) - 0.5) / 0.25
    return found if channels == 3 else found.mean(1, keepdim=True)


def _squares(count: int) -> Sequence[Tensor]:
    archive = Path(os.environ.get("SEKRON_EDGE_DATA", "")) / _ARCHIVE
    if archive.is_file():
        whole = photographs(archive).train
        return [_centre(whole[place * len(whole) // count]) for place in range(count)]
    shipped = photographs()
    return list(Crops([*shipped.train, *shipped.heldout], count, crop=_CROP, random=False).several(range(count)))


def _centre(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]
