"""Names of classes in the order of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sekron_edge.documents import read_text
from sekron_edge.errors import DataError


@dataclass(frozen=True)
class Classes:
    """Which folder is which of a model's outputs.

    Attributes:
        index: The output of each folder of images.
        labels: What reports call each output.
    """

    index: dict[str, int]
    labels: tuple[str, ...]

    @classmethod
    def in_order(cls, folders: Iterable[str]) -> Classes:
        """Return classes in the sorted order of their folders."""
        names = tuple(sorted(set(folders)))
        return cls({name: position for position, name in enumerate(names)}, names)

    @classmethod
    def from_file(cls, path: Path) -> Classes:
        """Read classes: one folder's name on a line, in the order of the model's outputs.

        What stands after a tab is what reports call the class.

        Raises:
            DataError: If the file cannot be read, is empty, or names a folder twice.
        """
        lines = read_text(path, DataError).splitlines()
        while lines and not lines[-1].strip():
            lines.pop()
        parts = [[part.strip() for part in line.split("\t", 1)] for line in lines]
        names = [part[0] for part in parts]
        if not names:
            raise DataError(f"{path} must name one class on each line; it is empty")
        index = {name: position for position, name in enumerate(names)}
        if "" in index:
            raise DataError(f"{path} must name one class on each line; line {index[''] + 1} is empty")
        if len(index) < len(names):
            twice = next(name for position, name in enumerate(names) if index[name] != position)
            raise DataError(f"{path} must name each class once; {twice!r} stands there twice")
        return cls(index, tuple(part[-1] or part[0] for part in parts))

    def require(self, folders: Iterable[str], where: Path, classes: Path) -> None:
        """Refuse folders that are none of the classes.

        Raises:
            DataError: If there is one; names it.
        """
        if unknown := sorted(set(folders) - self.index.keys()):
            first = next(iter(self.index))
            raise DataError(
                f"{classes} must name every folder of {where}, one on each line; it does not name {unknown[0]!r} "
                f"({len(unknown)} such folders); its first line is {first!r}"
            )
