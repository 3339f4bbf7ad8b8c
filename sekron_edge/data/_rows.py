"""Data sets of others as samples: rows with images, arrays and numbers, under any names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._preprocessing import Preprocessing, as_tensor
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Normalization

Pick = str | int | Callable[[Any], Any]
"""Where something is in a row: its key, its place, or a function of the row."""


class MapStyle(Protocol):
    """What has a length and indices: lists, ``torch.utils.data.Dataset``, data sets of torchvision and Hugging Face."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return a row."""
        ...


class Rows(Dataset[Any]):
    """Samples of a data set whose rows are tuples, as torchvision's, or dicts, as Hugging Face's; read when needed.

    Pillow's images become float32 ``(C, H, W)``: preprocessed, in [0, 1], and normalised. NumPy's arrays, numbers and
    lists of numbers become tensors; tensors stay.

    Args:
        rows: Any map-style data set.
        inputs: Where a row has the model's input.
        target: Where it has the target; None: samples are inputs alone.
        preprocessing: Of images.
        normalization: Of images.
    """

    def __init__(
        self,
        rows: MapStyle,
        *,
        inputs: Pick = 0,
        target: Pick | None = 1,
        preprocessing: Preprocessing | None = None,
        normalization: Normalization | None = None,
    ) -> None:
        self._rows, self._inputs, self._target = rows, inputs, target
        self._preprocessing = preprocessing or Preprocessing()
        self._normalization = normalization

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        """Return ``(inputs, target)``, or inputs alone.

        Raises:
            DataError: If the row has no such key, or what is there is neither an image nor numbers; names the row.
        """
        row = self._rows[index]
        inputs = self._read(picked(row, self._inputs, f"row {index}"), f"inputs of row {index}")
        if self._target is None:
            return inputs
        return inputs, self._read(picked(row, self._target, f"row {index}"), f"the target of row {index}")

    def _read(self, value: Any, which: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._read(each, f"{key} in {which}") for key, each in value.items()}
        if hasattr(value, "convert") and hasattr(value, "getbands"):  # Pillow's, which need not be imported
            mode = "RGB" if self._preprocessing.colours == "rgb" else "L"
            return self._normalized(as_tensor(self._preprocessing.placed(value.convert(mode), which)).float() / 255)
        return as_numbers(value, which)

    def _normalized(self, image: Tensor) -> Tensor:
        how = self._normalization
        if how is None:
            return image
        if not len(how.mean) == len(how.std) == len(image):
            raise ConfigError(
                f"normalization must have one mean and std for each of {len(image)} channels; got {len(how.mean)} and "
                f"{len(how.std)}"
            )
        return (image - torch.tensor(how.mean).view(-1, 1, 1)) / torch.tensor(how.std).view(-1, 1, 1)


def picked(row: Any, pick: Pick, which: str) -> Any:
    """Return what is at a place of a row, or of a batch.

    Raises:
        DataError: If there is no such place; names those that there are.
    """
    if callable(pick):
        return pick(row)
    try:
        return row[pick]
    except (KeyError, IndexError, TypeError) as error:
        there = f"it has {', '.join(map(str, row))}" if isinstance(row, Mapping) else f"it is a {type(row).__name__}"
        if isinstance(row, tuple | list):
            there += f" of {len(row)}"
        raise DataError(f"{which} has no {pick!r}; {there}. `inputs` and `target` say where they are") from error


def as_numbers(value: Any, which: str) -> Tensor:
    """Return a tensor of numbers of any kind.

    Raises:
        DataError: If they are none.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"{which} must be numbers of one shape: {error}") from error
    if array.dtype.kind not in "buif":
        raise DataError(
            f"{which} must be an image, an array or numbers; got a {type(value).__name__}: make tensors of it in the "
            "data set's own transform, or give a function as `inputs` or `target`"
        )
    return torch.from_numpy(array.copy())
