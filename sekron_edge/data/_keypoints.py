"""Points in images: where they are after preprocessing, and how far a model's are from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sekron_edge.data._file_tensors import FileTensors
from sekron_edge.data._preprocessing import Preprocessing, size_of
from sekron_edge.errors import DataError

if TYPE_CHECKING:
    import torchmetrics

Coordinates = Literal["pixels", "shares"]
"""Of the model's input: pixels, or shares of its width and height."""


class Keypoints:
    """Keypoints of images in files, as a model gives them; an image's own size is read when it is needed.

    A pixel's left edge is at its index, so the right edge of the image is at its width.

    Args:
        points: ``(N, 2 K)``: x and y of each point in turn, in pixels of the file.
        files: One image each.
        preprocessing: Of the images.
        coordinates: What the model gives.
    """

    def __init__(
        self, points: Tensor, files: FileTensors, preprocessing: Preprocessing, coordinates: Coordinates
    ) -> None:
        self._points, self._preprocessing, self._coordinates = points, preprocessing, coordinates
        self._sizes = FileTensors(files.tree, files.names, lambda content, name: torch.tensor(size_of(content, name)))

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return float32 ``(B, 2 K)`` for indices ``(B,)``."""
        indices: list[int] = index.tolist()
        sizes = self._sizes.several(indices)
        return torch.stack([self._placed(*each) for each in zip(indices, sizes, strict=True)])

    def _placed(self, index: int, size: Tensor) -> Tensor:
        height, width = (int(value) for value in size)
        place = self._preprocessing.placement(height, width, self._sizes.shown(index))
        resized = torch.tensor([place.width / width, place.height / height])
        corner = torch.tensor([float(place.left), float(place.top)])
        moved = self._points[index].view(-1, 2) * resized - corner
        return in_coordinates(moved.flatten(), place.shape, self._coordinates)


def in_coordinates(pixels: Tensor, size: tuple[int, int], coordinates: Coordinates) -> Tensor:
    """Return keypoints ``(..., 2 K)`` in pixels of an image of this height and width in a model's coordinates."""
    return pixels / _extent(size, pixels) if coordinates == "shares" else pixels


def _extent(size: tuple[int, int], values: Tensor) -> Tensor:
    """Return width and height in turn, one for each of ``(..., 2 K)``."""
    height, width = size
    return torch.tensor([float(width), float(height)], device=values.device).repeat(values.shape[-1] // 2)


def paired(values: Tensor) -> Tensor:
    """Return values that are keypoints.

    Raises:
        DataError: If they are not x and y in turn.
    """
    if values.shape[1] % 2:
        raise DataError(f"keypoints must be x and y in turn, an even number of values; the data have {values.shape[1]}")
    return values


def spread(size: tuple[int, int], coordinates: Coordinates, values: int) -> tuple[float, ...]:
    """Return the standard deviation of each of ``values``, if points are anywhere in the image alike."""
    extent = (1.0, 1.0) if coordinates == "shares" else (float(size[1]), float(size[0]))
    return tuple(side / math.sqrt(12) for side in extent) * (values // 2)


def keypoint_distance(size: tuple[int, int], coordinates: Coordinates) -> torchmetrics.Metric:
    """Return a metric: the mean distance of keypoints, as a share of the image's diagonal; less is better.

    Args:
        size: Height and width of the model's input.
        coordinates: Of outputs and targets, each ``(B, 2 K)``.
    """
    return _of_distances(size, coordinates, lambda distances: distances, higher_is_better=False)


def keypoint_share(size: tuple[int, int], coordinates: Coordinates, within: float) -> torchmetrics.Metric:
    """Return a metric: the share of keypoints that are found (PCK), at most ``within`` of the diagonal away."""
    return _of_distances(size, coordinates, lambda distances: distances <= within, higher_is_better=True)


def _of_distances(
    size: tuple[int, int],
    coordinates: Coordinates,
    counted: Callable[[Tensor], Tensor],
    *,
    higher_is_better: bool,
) -> torchmetrics.Metric:
    import torchmetrics

    better, diagonal = higher_is_better, math.hypot(*size)

    class OfDistances(torchmetrics.Metric):
        """The mean over keypoints of something of their distance, a share of the diagonal."""

        higher_is_better = better
        total: Tensor
        points: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state("points", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

        def update(self, outputs: Tensor, targets: Tensor) -> None:
            """Count a batch, ``(B, 2 K)`` each."""
            away = (outputs - targets).double()
            pixels = away * _extent(size, away) if coordinates == "shares" else away
            distances = pixels.unflatten(-1, (-1, 2)).square().sum(-1).sqrt() / diagonal
            self.total += counted(distances).double().sum()
            self.points += distances.numel()

        def compute(self) -> Tensor:
            """Return the mean."""
            return self.total / self.points

    return OfDistances()
