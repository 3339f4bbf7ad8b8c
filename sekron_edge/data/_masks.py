"""Images and the masks that say of each pixel which class it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._file_tensors import FileTensors
from sekron_edge.data._preprocessing import Preprocessing, opened
from sekron_edge.errors import DataError
from sekron_edge.task import Normalization

_UNKNOWN = -32768


@dataclass(frozen=True)
class MaskDecoding:
    """How a mask's file becomes the classes of its pixels.

    Attributes:
        classes: Number of classes.
        preprocessing: As of the image; masks are resized to the nearest pixel's class.
        ignored: Value of pixels that do not count.
        values: Value of each class in the files; by default its index.
    """

    classes: int
    preprocessing: Preprocessing
    ignored: int = 255
    values: tuple[int, ...] | None = None

    def classes_of(self, content: bytes, name: str) -> Tensor:
        """Return int16 ``(H, W)``.

        Raises:
            DataError: If the file is no mask, or has a value that is no class; names it.
        """
        picture = opened(content, name)
        placed = np.array(self.preprocessing.placed(picture, name, "nearest"))
        if placed.ndim == 3:
            if picture.mode not in ("RGB", "RGBA", "LA") or (placed[..., :3] != placed[..., :1]).any():
                raise DataError(
                    f"{name} is a colour image; a mask has one value for each pixel: the index of its class"
                )
            placed = placed[..., 0]
        if placed.dtype.kind == "f":
            raise DataError(f"{name} has values that are no integers; a mask has the index of a class for each pixel")
        known = range(self.classes) if self.values is None else self.values
        table = np.full(max(self.ignored, *known) + 2, _UNKNOWN, dtype=np.int16)
        if self.ignored >= 0:
            table[self.ignored] = self.ignored
        table[list(known)] = range(self.classes)
        # Masks may have 32 bits a pixel: what no class has, nor what is ignored, is looked up in the last place.
        index = placed.astype(np.int64)
        found = table[np.where((index < 0) | (index > len(table) - 1), len(table) - 1, index)]
        if (found == _UNKNOWN).any():
            odd = int(placed[found == _UNKNOWN].flat[0])
            allowed = f"0..{self.classes - 1}" if self.values is None else str(list(self.values))
            raise DataError(
                f"{name} has a pixel of value {odd}; the {self.classes} classes are {allowed}, and {self.ignored} is "
                "ignored. Set data.classes, data.ignore_index, or data.mask_values to the files' own values"
            )
        return torch.from_numpy(found)


class MaskedImages(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images with their masks, read when they are needed; optionally mirrored at random.

    Args:
        images: uint8 ``(C, H, W)`` each.
        masks: int16 ``(H, W)`` each, in the images' order.
        normalization: Applied to pixels in [0, 1].
        flip: Mirror half of the samples left to right, by torch's global generator.
    """

    def __init__(
        self, images: FileTensors, masks: FileTensors, normalization: Normalization, *, flip: bool = False
    ) -> None:
        self._images, self._masks, self._flip = images, masks, flip
        self._mean = torch.tensor(normalization.mean).view(-1, 1, 1)
        self._std = torch.tensor(normalization.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return float32 ``(C, H, W)`` and int64 ``(H, W)``."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return several samples, read together."""
        images, masks = self._images.several(indices), self._masks.several(indices)
        return [self._sample(*each) for each in zip(indices, images, masks, strict=True)]

    def _sample(self, index: int, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if image.shape[1:] != mask.shape:
            raise DataError(
                f"{self._masks.shown(index)} is {mask.shape[1]}x{mask.shape[0]} and its image {image.shape[2]}x"
                f"{image.shape[1]}; a mask must be as large as its image"
            )
        if self._flip and bool(torch.rand(()) < 0.5):
            image, mask = image.flip(2), mask.flip(1)
        return (image.float() / 255 - self._mean) / self._std, mask.long()
