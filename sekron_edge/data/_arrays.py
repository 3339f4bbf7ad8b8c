"""Inputs and targets in an ``.npz`` file."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sekron_edge.data._limits import require_entries
from sekron_edge.errors import DataError

_SPLIT = ("train_inputs", "train_targets", "heldout_inputs", "heldout_targets")
_WHOLE = ("inputs", "targets")


@dataclass(frozen=True, eq=False)
class Arrays:
    """All samples of a file, training ones first.

    Attributes:
        inputs: uint8 pixels or float32, ``(N, ...)``.
        targets: float32 ``(N, D)``.
        train: Number of training samples; 0 where the file does not say.
    """

    inputs: Tensor
    targets: Tensor
    train: int


def read_arrays(path: Path) -> Arrays:
    """Read ``train_inputs``, ``train_targets``, ``heldout_inputs`` and ``heldout_targets``; or ``inputs``, ``targets``.

    Raises:
        DataError: If the file cannot be read, has neither set of arrays, or they do not fit each other, or have values
            that are not finite; names the array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            require_entries(archive, str(path))
        with np.load(path, allow_pickle=False) as file:
            names = next((names for names in (_SPLIT, _WHOLE) if set(names) <= set(file.files)), None)
            if names is None:
                raise DataError(
                    f"{path} must hold the arrays {', '.join(_SPLIT)}, or {' and '.join(_WHOLE)}; it holds "
                    f"{', '.join(file.files) or 'none'}"
                )
            arrays = [_read(path, name, file[name]) for name in names]
    except DataError:
        raise
    # An array's header is text in Python's syntax: numpy raises whatever its parser trips over, and MemoryError for a
    # shape that no file holds.
    except Exception as error:
        raise DataError(f"{path} cannot be read as an .npz of numbers: {error}") from error
    pairs = list(zip(names[::2], arrays[::2], names[1::2], arrays[1::2], strict=True))
    for inputs_name, inputs, targets_name, targets in pairs:
        if len(inputs) != len(targets) or not len(inputs):
            raise DataError(
                f"{inputs_name} and {targets_name} in {path} must have one row for each sample, and at least one; they "
                f"have {len(inputs)} and {len(targets)}"
            )
    for kind, (first, *rest) in (("inputs", arrays[::2]), ("targets", arrays[1::2])):
        if any(other.shape[1:] != first.shape[1:] or other.dtype != first.dtype for other in rest):
            raise DataError(f"training and held-out {kind} in {path} must be of one shape and type")
    targets = torch.cat([each.float().flatten(1) if each.ndim > 1 else each.float()[:, None] for each in arrays[1::2]])
    return Arrays(torch.cat(arrays[::2]), targets, len(arrays[0]) if len(pairs) > 1 else 0)


def _read(path: Path, name: str, array: object) -> Tensor:
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is no array
        raise DataError(f"{name} in {path} must be an array; it is none")
    if array.ndim == 0 or array.dtype.kind not in "buif":
        raise DataError(f"{name} in {path} must hold numbers, one row for each sample; it is {array.dtype}")
    with np.errstate(over="ignore"):  # what is too large for float32 is refused below, as it is then not finite
        values = torch.from_numpy(array if array.dtype == np.uint8 else array.astype(np.float32))
    if values.is_floating_point() and not torch.isfinite(values).all():
        row = int((~torch.isfinite(values.flatten(1) if values.ndim > 1 else values[:, None])).any(1).nonzero()[0])
        raise DataError(f"{name} in {path} must be finite; row {row} is not")
    return values
