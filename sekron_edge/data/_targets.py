"""Numeric targets of images: CSV files in a folder or a zip."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sekron_edge.data._files import FileTree
from sekron_edge.documents import decoded
from sekron_edge.errors import DataError

# The largest of float32, in which targets are kept.
_MOST = 3.4028234663852886e38


@dataclass(frozen=True)
class ImageTargets:
    """The values of images, by their names in a folder or a zip."""

    of: dict[str, tuple[float, ...]]

    @classmethod
    def read(cls, tree: FileTree, file: str, columns: Sequence[str] | None = None) -> ImageTargets:
        """Read every CSV file of that name in a tree.

        A row is an image's file, from the CSV's own folder, and its values. A first row without any number
        names the columns.

        Args:
            tree: Holds the CSV files and the images.
            file: The CSV files' name.
            columns: Those to take, by their names; by default all but the first.

        Raises:
            DataError: If there is no such file; or a row has another number of values, a value that is no finite
                number, or an image that is not there or was there before. Names file and line.
        """
        found = [name for name in tree.names if PurePosixPath(name).name == file]
        if not found:
            raise DataError(
                f"{tree.path} must hold {file}, with a file's name and its values on each line; it does not. "
                "Another name is given by data.targets"
            )
        images, values = set(tree.names), dict[str, tuple[float, ...]]()
        count = 0
        for name in found:
            for where, image, numbers in _rows(tree, name, columns):
                count = count or len(numbers)
                if len(numbers) != count:
                    raise DataError(f"{where} must have {count} values, as the first row has; it has {len(numbers)}")
                if image not in images:
                    raise DataError(
                        f"{where} names the image {image}, which is not in {tree.path}; files are named from the "
                        "CSV's own folder"
                    )
                if image in values:
                    raise DataError(f"{where} names {image} again; give each image one row")
                values[image] = numbers
        return cls(values)


_Row = tuple[str, str, tuple[float, ...]]


def _rows(tree: FileTree, name: str, columns: Sequence[str] | None) -> list[_Row]:
    """Return of each row where it stands, for messages, its image's name in the tree, and its values."""
    text = decoded(tree.read(name), tree.shown(name), DataError)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(f"{tree.shown(name)}, line {lines.line_num},", row) for row in lines if any(map(str.strip, row))]
    except csv.Error as error:
        raise DataError(f"{tree.shown(name)} cannot be read as CSV: {error}") from error
    if not rows:
        raise DataError(f"{tree.shown(name)} must have a row for each image; it is empty")
    (where, first), *others = rows
    named = len(first) > 1 and all(_number(value) is None for value in first[1:])
    if columns is not None and not named:
        raise DataError(f"{where} must name the columns, as data.columns are given; it has numbers")
    header = [value.strip() for value in first]
    if columns is not None and (absent := [column for column in columns if column not in header[1:]]):
        raise DataError(f"{where} must name the column {absent[0]!r}; its columns are {', '.join(header[1:])}")
    places = range(1, len(header)) if columns is None else [header.index(column, 1) for column in columns]
    if not places:
        raise DataError(
            f"{where} must have a file's name and its values, with commas between; it has {len(first)} field"
        )
    folder = PurePosixPath(name).parent
    return [(at, (folder / row[0].strip()).as_posix(), _values(at, row, header, places)) for at, row in
            (others if named else rows)]  # fmt: skip


def _values(where: str, row: list[str], header: list[str], places: Sequence[int]) -> tuple[float, ...]:
    if len(row) != len(header):
        raise DataError(f"{where} must have {len(header)} fields, as the first row has; it has {len(row)}")
    numbers = []
    for place in places:
        number = _number(row[place])
        if number is None or not abs(number) <= _MOST:
            raise DataError(f"{where} must have finite numbers; field {place + 1} is {row[place][:80]!r}")
        numbers.append(number)
    return tuple(numbers)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
