"""Tensors that lie in files, and are read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import torch
from torch import Tensor

from sekron_edge.data._files import FileTree
from sekron_edge.errors import DataError

MEMORY_BYTES = 512 << 20
"""What was read of one split stays in memory until it takes this much."""

# Images that are decoded at a time.
_TOGETHER = 1024

Decode = Callable[[bytes, str], Tensor]
"""Makes a tensor of a file's content; gets its name for messages."""


class FileTensors(Sequence[Tensor]):
    """Tensors of the files of a folder or a zip, read when they are asked for: images and masks of any sizes, sounds.

    Those that were read are kept until they take ``memory_bytes``; the others are read again each time.

    Args:
        tree: Holds the files.
        names: Which of them, in this order.
        decode: Makes a tensor of a file's content.
        memory_bytes: Most bytes to keep.
    """

    def __init__(
        self, tree: FileTree, names: Iterable[str], decode: Decode, *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.tree, self.names, self.decode = tree, tuple(names), decode
        self._memory_bytes = memory_bytes
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> FileTensors: ...
    def __getitem__(self, index: int | slice) -> Tensor | FileTensors:
        """Return a tensor; a slice is read no sooner than its tensors are."""
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self.several([range(len(self))[index]])[0]

    def select(self, indices: Iterable[int]) -> FileTensors:
        """Return some of the tensors, unread."""
        return FileTensors(
            self.tree, [self.names[index] for index in indices], self.decode, memory_bytes=self._memory_bytes
        )

    def several(self, indices: Sequence[int]) -> list[Tensor]:
        """Return tensors; those that are not in memory are read in threads."""
        missing = sorted({index for index in indices if index not in self._kept})
        read = dict(zip(missing, self.once(missing), strict=True))
        found = [self._kept[index] if index in self._kept else read[index] for index in indices]
        for index, tensor in read.items():
            if self._kept_bytes + tensor.nbytes <= self._memory_bytes:
                self._kept[index] = tensor
                self._kept_bytes += tensor.nbytes
        return found

    def once(self, indices: Sequence[int]) -> list[Tensor]:
        """Read tensors in threads, and keep none."""
        if len(indices) < 2:
            return [self._decoded(index) for index in indices]
        with ThreadPoolExecutor(min(len(indices), os.cpu_count() or 1)) as pool:
            return list(pool.map(self._decoded, indices))

    def shown(self, index: int) -> str:
        """Return how messages call a file."""
        return self.tree.shown(self.names[index])

    def _decoded(self, index: int) -> Tensor:
        return self.decode(self.tree.read(self.names[index]), self.shown(index))

    def __getstate__(self) -> dict[str, Any]:
        """Leave what was read behind: a copy in another process reads its own."""
        return {**self.__dict__, "_kept": {}, "_kept_bytes": 0}


class StackedImages:
    """Images of one shape, read when they are indexed: like a tensor ``(N, C, H, W)`` that lies in files.

    Args:
        images: One in each file.
    """

    def __init__(self, images: FileTensors) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    @property
    def shape(self) -> torch.Size:
        """``(N, C, H, W)``; the first image is read for it."""
        return torch.Size((len(self), *self._images[0].shape))

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return ``(B, C, H, W)`` for indices ``(B,)``.

        Raises:
            DataError: If one is of another size than the first of all; names both.
        """
        indices = [int(value) for value in index]
        return torch.stack(self._same(self._images.several(indices), indices))

    def select(self, index: Tensor) -> StackedImages:
        """Return some of the images, unread."""
        return StackedImages(self._images.select(int(value) for value in index))

    def decoded(self) -> Tensor:
        """Return all images, decoded in parts, so that they are not in memory twice."""
        whole = torch.empty(self.shape, dtype=torch.uint8)
        for part in range(0, len(self), _TOGETHER):
            indices = range(part, min(part + _TOGETHER, len(self)))
            torch.stack(self._same(self._images.once(indices), indices), out=whole[part : part + len(indices)])
        return whole

    def _same(self, images: list[Tensor], indices: Sequence[int]) -> list[Tensor]:
        first = self.shape[1:]
        for image, index in zip(images, indices, strict=True):
            if image.shape != first:
                raise DataError(
                    f"{self._images.shown(index)} is {image.shape[2]}x{image.shape[1]} and {self._images.shown(0)} is "
                    f"{first[2]}x{first[1]}; give a size to resize all images to"
                )
        return images
