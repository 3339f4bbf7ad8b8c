"""Photographs for super-resolution: those of scikit-learn and scikit-image, or a folder of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.errors import ConfigError, DataError, MissingDependencyError

_TRAIN = ("coffee", "rocket", "stereo_motorcycle", "immunohistochemistry")
_HELDOUT = ("astronaut", "chelsea")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


@dataclass(frozen=True, eq=False)
class Photographs:
    """Whole photographs: uint8 tensors ``(3, H, W)`` of any sizes; held-out ones are other photographs."""

    train: tuple[Tensor, ...]
    heldout: tuple[Tensor, ...]


def photographs(path: Path | None = None) -> Photographs:
    """Load photographs.

    Args:
        path: Folder with images in ``train`` and ``test``; by default those of scikit-learn and scikit-image.

    Raises:
        DataError: If a folder has no images, or one is not readable.
        MissingDependencyError: If scikit-learn or scikit-image is absent.
    """
    if path is not None:
        return Photographs(_folder(path / "train"), _folder(path / "test"))
    try:
        import skimage.data
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise MissingDependencyError("scikit-image", "data") from error

    def shipped(name: str) -> Tensor:
        image = getattr(skimage.data, name)()
        return _tensor(image[0] if isinstance(image, tuple) else image)

    train = [*map(_tensor, load_sample_images().images), *map(shipped, _TRAIN)]
    return Photographs(tuple(train), tuple(map(shipped, _HELDOUT)))


def require_photographs_for_super_resolution(task: str, source: str) -> None:
    """Refuse photographs for another task, and super-resolution of anything else.

    Raises:
        ConfigError: If that is so.
    """
    if (task == "super-resolution") != (source == "photographs"):
        raise ConfigError(
            f'task = "super-resolution" and data.source = "photographs" belong together; got {task!r} and {source!r}'
        )


def _tensor(pixels: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels[..., :3].transpose(2, 0, 1)))


def _folder(folder: Path) -> tuple[Tensor, ...]:
    from PIL import Image

    names = sorted(file for file in folder.glob("*") if file.suffix.lower() in _SUFFIXES)
    if not names:
        raise DataError(f"{folder} must hold photographs ({', '.join(sorted(_SUFFIXES))}); it has none")
    images = []
    for name in names:
        try:
            with Image.open(name) as image:
                images.append(_tensor(np.asarray(image.convert("RGB"))))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{name} is not a readable image: {error}; repair or remove it") from error
    return tuple(images)


class CropPairs(Dataset[tuple[Tensor, Tensor]]):
    """Crops of photographs as ``(small, large)``: floats in [0, 1], small by bicubic reduction.

    Args:
        images: Photographs, each at least ``crop`` pixels high and wide.
        count: Number of crops. Without ``random`` they are spread evenly over a grid on all photographs.
        crop: Height and width of the large image, in pixels.
        scale: The small image is this many times smaller.
        random: Draw places and mirrorings from torch's global generator, again at each access.

    Raises:
        DataError: If a photograph is smaller than the crop, or the crop is not a multiple of the scale.
    """

    def __init__(
        self, images: Sequence[Tensor], count: int, *, crop: int = 64, scale: int = 2, random: bool = False
    ) -> None:
        if crop % scale:
            raise DataError(f"the crop must be a multiple of the scale; got {crop} and {scale}")
        least = min(min(image.shape[1:]) for image in images)
        if least < crop:
            raise DataError(f"every photograph must be at least {crop} pixels high and wide; one has {least}")
        self._images, self._count, self._crop = tuple(images), count, crop
        self._scale, self._random = scale, random
        grid = [
            (index, top, left)
            for index, image in enumerate(images)
            for top in range(0, image.shape[1] - crop + 1, crop)
            for left in range(0, image.shape[2] - crop + 1, crop)
        ]
        self._places = [grid[position * len(grid) // count] for position in range(count)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return ``(3, crop / scale, crop / scale)`` and ``(3, crop, crop)``."""
        small, large = self.__getitems__([index])
        return small[0], large[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a batch of both."""
        crops = [self._drawn() if self._random else self._at(*self._places[index]) for index in indices]
        large = torch.stack(crops).float() / 255
        size = self._crop // self._scale
        small = F.interpolate(large, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
        return small.clamp(0, 1), large

    def _at(self, index: int, top: int, left: int) -> Tensor:
        return self._images[index][:, top : top + self._crop, left : left + self._crop]

    def _drawn(self) -> Tensor:
        index = int(torch.randint(len(self._images), ()))
        height, width = self._images[index].shape[1:]
        top, left = (int(torch.randint(size - self._crop + 1, ())) for size in (height, width))
        crop = self._at(index, top, left)
        return crop.flip(2) if bool(torch.rand(()) < 0.5) else crop
