"""Photographs for super-resolution and denoising: those of scikit-learn and scikit-image, or a folder of your own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._file_tensors import FileTensors
from sekron_edge.data._files import FileTree
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._preprocessing import SUFFIXES, Colours, Preprocessing, as_tensor, size_of
from sekron_edge.data._set_aside import drawn
from sekron_edge.data._split_files import other_kind, split_files
from sekron_edge.errors import ConfigError, DataError, MissingDependencyError

_TRAIN = ("coffee", "rocket", "stereo_motorcycle", "immunohistochemistry")
_HELDOUT = ("astronaut", "chelsea")


@dataclass(frozen=True, eq=False)
class Photographs:
    """Whole photographs: uint8 tensors ``(C, H, W)`` of any sizes; held-out ones are other photographs.

    ``notes`` say what was read and what was not, a line each.
    """

    train: Sequence[Tensor]
    heldout: Sequence[Tensor]
    notes: tuple[str, ...] = ()


def photographs(
    path: Path | None = None,
    *,
    train: str | None = None,
    heldout: str | None = None,
    colours: Colours = "rgb",
    seed: int = 0,
) -> Photographs:
    """Load photographs; those of a folder are read when they are needed.

    Args:
        path: Folder or zip with images in ``train`` and ``test``; by default those of scikit-learn and scikit-image.
            Without training photographs, a fifth of the held-out ones becomes them.
        train: Folder of the training photographs; by default ``train``.
        heldout: Folder of the held-out ones; by default the first of ``test``, ``val`` and the like.
        colours: ``rgb`` for three channels, ``grey`` for one.
        seed: Chooses those that become training photographs.

    Raises:
        DataError: If a folder has no images, or every held-out one is a copy of a training photograph.
        MissingDependencyError: If scikit-learn or scikit-image is absent.
    """
    if path is not None:
        tree = FileTree(path)
        splits = split_files(tree, train=train, heldout=heldout, why_not=other_kind(SUFFIXES), form="photographs")
        read = partial(FileTensors, tree, decode=Preprocessing(colours=colours).pixels)
        parts = [[name for _, name in split] for split in (splits.train, splits.heldout)]
        if not parts[0]:
            held = parts[1]
            if len(held) < 2:
                raise DataError(f"{path} must hold at least 2 photographs, one to train and one held out; it holds 1")
            chosen, others = drawn(len(held), max(1, len(held) // 5), seed)
            parts = [[held[index] for index in part] for part in (chosen, others)]
        notes = reading_notes(tree, "photographs", *parts, skipped=splits.skipped, set_aside=not splits.train)
        return Photographs(read(parts[0]), read(parts[1]), notes)
    try:
        import skimage.data
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise MissingDependencyError("scikit-image", "data") from error

    def shipped(name: str) -> npt.NDArray[np.uint8]:
        image = getattr(skimage.data, name)()
        found: npt.NDArray[np.uint8] = image[0] if isinstance(image, tuple) else image
        return found[..., :3]

    training = [*load_sample_images().images, *map(shipped, _TRAIN)]
    convert = partial(_converted, colours=colours)
    return Photographs(tuple(map(convert, training)), tuple(map(convert, map(shipped, _HELDOUT))))


def require_photographs_for_super_resolution(task: str, source: str) -> None:
    """Refuse photographs for another task, and super-resolution of anything else.

    Raises:
        ConfigError: If that is so.
    """
    if (task == "super-resolution") != (source == "photographs"):
        raise ConfigError(
            f'task = "super-resolution" and data.source = "photographs" belong together; got {task!r} and {source!r}'
        )


def _converted(pixels: npt.NDArray[np.uint8], colours: Colours) -> Tensor:
    from PIL import Image

    return as_tensor(Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB" if colours == "rgb" else "L"))


class Crops:
    """Square crops of photographs.

    Args:
        images: Photographs, each at least ``crop`` pixels high and wide.
        count: Number of crops. Without ``random`` they are spread evenly over a grid on all photographs.
        crop: Height and width, in pixels.
        random: Draw places and mirrorings from torch's global generator, again at each access.

    Raises:
        DataError: If a photograph is smaller than the crop.
    """

    def __init__(self, images: Sequence[Tensor], count: int, *, crop: int, random: bool) -> None:
        self._images, self._count, self._crop, self._random = images, count, crop, random
        self._sizes = _sizes(images)
        for index, size in enumerate(self._sizes):
            if min(size) < crop:
                which = f"{images.shown(index)} is" if isinstance(images, FileTensors) else "one has"
                raise DataError(
                    f"every photograph must be at least {crop} pixels high and wide; {which} {size[1]}x{size[0]}"
                )
        grid = [
            (index, top, left)
            for index, (height, width) in enumerate(self._sizes)
            for top in range(0, height - crop + 1, crop)
            for left in range(0, width - crop + 1, crop)
        ]
        self._places = [grid[position * len(grid) // count] for position in range(count)]

    def __len__(self) -> int:
        return self._count

    def several(self, indices: Sequence[int]) -> Tensor:
        """Return crops, uint8 ``(B, C, crop, crop)``."""
        return torch.stack([self._drawn() if self._random else self._at(*self._places[index]) for index in indices])

    def _at(self, index: int, top: int, left: int) -> Tensor:
        return self._images[index][:, top : top + self._crop, left : left + self._crop]

    def _drawn(self) -> Tensor:
        index = int(torch.randint(len(self._images), ()))
        top, left = (int(torch.randint(size - self._crop + 1, ())) for size in self._sizes[index])
        crop = self._at(index, top, left)
        return crop.flip(2) if bool(torch.rand(()) < 0.5) else crop


def _sizes(images: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return height and width of each image; of files only the headers are read."""
    if isinstance(images, FileTensors):
        return [size_of(images.tree.read(name), images.tree.shown(name)) for name in images.names]
    return [(image.shape[1], image.shape[2]) for image in images]


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
        self._crops, self._size = Crops(images, count, crop=crop, random=random), crop // scale

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return ``(3, crop / scale, crop / scale)`` and ``(3, crop, crop)``."""
        small, large = self.__getitems__([index])
        return small[0], large[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a batch of both."""
        large = self._crops.several(indices).float() / 255
        size = (self._size, self._size)
        small = F.interpolate(large, size=size, mode="bicubic", antialias=True, align_corners=False)
        return small.clamp(0, 1), large
