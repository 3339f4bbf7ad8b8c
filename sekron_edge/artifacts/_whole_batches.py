"""Batches of any size in whole batches of an artifact's own. No torch here: arrays and tensors alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Shape = tuple[int, ...]


def batch_and_total(values: Sequence[Any], shapes: Sequence[Shape]) -> tuple[int, int]:
    """Return the length of an artifact's batch, and the number of samples that are given.

    An input that has the artifact's own shape is the same for all samples, or one batch; the first one that has another
    length tells the two numbers. They are equal where all inputs have the artifact's shapes.

    Args:
        values: Inputs, arrays or tensors.
        shapes: Of the artifact's inputs, in the same order and layout.
    """
    for value, shape in zip(values, shapes, strict=True):
        if shape and value.ndim and len(value) != shape[0]:
            return shape[0], len(value)
    first = next((shape[0] for shape in shapes if shape), 1)
    return first, first


def whole_batches(values: Sequence[Any], shapes: Sequence[Shape]) -> Iterator[list[Any]]:
    """Return inputs in whole pieces of an artifact's batch; what is the same for all samples is in every piece.

    Samples that do not fill the last piece are left out. Arguments are those of `batch_and_total`.
    """
    batch, total = batch_and_total(values, shapes)
    for start in range(0, total - batch + 1, batch):
        yield [
            value if tuple(value.shape) == shape else value[start : start + batch]
            for value, shape in zip(values, shapes, strict=True)
        ]
