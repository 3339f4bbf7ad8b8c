"""Images in memory, and a data set that normalises and augments whole batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data._utils.collate import collate as stacked
from torch.utils.data._utils.collate import default_collate_fn_map

from sekron_edge.errors import DataError
from sekron_edge.pytrees import Shared, in_single
from sekron_edge.task import Normalization


class UnreadImages(Protocol):
    """Images of one shape that are read when they are indexed."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    @property
    def shape(self) -> torch.Size:
        """``(N, C, H, W)``."""
        ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return uint8 ``(B, C, H, W)`` for indices ``(B,)``."""
        ...

    def select(self, index: Tensor) -> UnreadImages:
        """Return some of the images, unread."""
        ...


class Targets(Protocol):
    """Targets of images, one for each: a tensor, or read when they are indexed."""

    def __getitem__(self, index: Tensor, /) -> Tensor:
        """Return ``(B, ...)`` for indices ``(B,)``."""
        ...


Images = Tensor | UnreadImages
"""uint8 ``(N, C, H, W)``: in memory, or read when needed."""


def selected(images: Images, index: Tensor) -> Images:
    """Return some of the images: unread ones are not read."""
    return images[index] if isinstance(images, Tensor) else images.select(index)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled set of images, split once into training and held-out data.

    Attributes:
        train_images: uint8, ``(N, C, H, W)``, in memory or unread.
        train_targets: int64, ``(N,)``: indices into ``labels``.
        heldout_images: uint8, ``(M, C, H, W)``.
        heldout_targets: int64, ``(M,)``.
        labels: Names of the classes.
        notes: What was read and what was not, a line each.
    """

    train_images: Images
    train_targets: Tensor
    heldout_images: Images
    heldout_targets: Tensor
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split, images, targets in (
            ("train", self.train_images, self.train_targets),
            ("held-out", self.heldout_images, self.heldout_targets),
        ):
            dtype = images.dtype if isinstance(images, Tensor) else torch.uint8
            if dtype != torch.uint8 or len(images.shape) != 4 or len(images) == 0:
                raise DataError(
                    f"{split} images must be a non-empty uint8 tensor (N, C, H, W); "
                    f"got {dtype} of shape {tuple(images.shape)}"
                )
            if targets.dtype != torch.int64 or targets.shape != images.shape[:1]:
                raise DataError(
                    f"{split} targets must be int64 of shape ({len(images)},); "
                    f"got {targets.dtype} of shape {tuple(targets.shape)}"
                )
            low, high = int(targets.min()), int(targets.max())
            if low < 0 or high >= len(self.labels):
                raise DataError(
                    f"{split} targets must lie in 0..{len(self.labels) - 1}, one for each label; "
                    f"got values from {low} to {high}"
                )
        if self.train_images.shape[1:] != self.heldout_images.shape[1:]:
            raise DataError(
                "training and held-out images must have one shape; got "
                f"{tuple(self.train_images.shape[1:])} and {tuple(self.heldout_images.shape[1:])}"
            )


class AugmentedImages(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images, optionally shifted and flipped at random; whole batches at a time.

    A data loader that is given `collate` gets each batch from one call of ``__getitems__``.
    Randomness comes only from torch's global generator, so load in the main process
    (``num_workers=0``) and seed that generator.

    Args:
        images: uint8, ``(N, C, H, W)``, in memory or unread.
        targets: ``(N, ...)``, in memory or unread.
        normalization: Applied to pixels in [0, 1]; one mean and std for each channel.
        shift: Largest random shift in pixels along each axis; 0 for none.
        flip: Whether half of the images are mirrored left to right.
        padding: What a shift brings in: zeros (black pixels), or the image's own reflection.
    """

    def __init__(
        self,
        images: Images,
        targets: Targets,
        normalization: Normalization,
        *,
        shift: int = 0,
        flip: bool = False,
        padding: Literal["zero", "reflect"] = "zero",
    ) -> None:
        channels, height, width = images.shape[1:]
        if not len(normalization.mean) == len(normalization.std) == channels:
            raise DataError(
                f"normalization must have one mean and std for each of {channels} channels; "
                f"got {len(normalization.mean)} and {len(normalization.std)}"
            )
        if min(normalization.std) <= 0:
            raise DataError(f"every std of a normalization must be positive; got {normalization.std}")
        if not 0 <= shift < min(height, width):
            raise DataError(f"shift must lie in 0..{min(height, width) - 1} pixels; got {shift}")
        self._images = images
        self._targets = targets
        self._shift = shift
        self._flip = flip
        self._padding = padding
        mean, std = torch.tensor(normalization.mean), torch.tensor(normalization.std)
        self._scale = (1 / (255 * std)).view(1, -1, 1, 1)
        self._offset = (-mean / std).view(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return one sample: ``(C, H, W)`` float32 and its target."""
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a batch: ``(B, C, H, W)`` float32 and ``(B, ...)`` targets."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        images = self._images[index]
        if self._shift or self._flip:
            images = self._augment(images)
        return images.float().mul_(self._scale).add_(self._offset), self._targets[index]

    def _augment(self, images: Tensor) -> Tensor:
        """Shift and flip each of ``(B, C, H, W)`` by its own random amounts."""
        batch, channels, height, width = images.shape
        rows = torch.arange(height).expand(batch, -1)
        columns = torch.arange(width).expand(batch, -1)
        if self._flip:
            mirrored = torch.rand(batch, 1) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if self._shift:
            offsets = torch.randint(-self._shift, self._shift + 1, (2, batch, 1))
            rows, columns = rows + offsets[0], columns + offsets[1]
            if self._padding == "reflect":
                rows, columns = _reflected(rows, height), _reflected(columns, width)
            else:
                images = F.pad(images, [self._shift] * 4)
                rows, columns = rows + self._shift, columns + self._shift
        return images[
            torch.arange(batch).view(-1, 1, 1, 1),
            torch.arange(channels).view(1, -1, 1, 1),
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]


def _reflected(index: Tensor, size: int) -> Tensor:
    """Mirror indices that lie outside ``0..size - 1`` at the border pixel."""
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def collate(batch: Any) -> Any:
    """Make one batch of samples, floats in float32.

    Every tensor of a list of samples, any pytrees, is stacked, and a number becomes a tensor with one value for each
    sample; what is `sekron_edge.Shared` stays as it is. What is no list is a batch, made by a data set's own
    ``__getitems__``.

    Raises:
        DataError: If samples differ in structure or shape, or in what they share.
    """
    if not isinstance(batch, list):
        return in_single(batch)
    try:
        return in_single(stacked(batch, collate_fn_map={**default_collate_fn_map, Shared: _shared}))
    except (RuntimeError, TypeError, KeyError) as error:
        raise DataError(f"samples must be alike in structure and shape to make a batch: {error}") from error


def _shared(samples: list[Shared], **_: Any) -> Shared:
    """Return what samples share, if it is the same in all of them."""
    first, *others = samples
    if not all(first.equals(other) for other in others):
        raise DataError(f"what is Shared must be the same in all samples, and {first!r} is not: give it without Shared")
    return first


def batch_of(samples: Any, indices: Sequence[int]) -> Any:
    """Return some samples of a data set as one batch."""
    if hasattr(samples, "__getitems__"):
        return collate(samples.__getitems__(list(indices)))
    return collate([samples[index] for index in indices])
