"""Files of a folder, or of a zip of one, and their splits into training and held-out files."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sekron_edge.data._limits import require_entries
from sekron_edge.errors import DataError

TRAIN_FOLDERS = ("train", "training")
HELDOUT_FOLDERS = ("test", "testing", "val", "valid", "validation")


class FileTree:
    """The files of a folder, or of a zip of one, by their names relative to it; each is read when asked for.

    Hidden files, and what macOS adds to its zips, do not count.

    Args:
        path: The folder or the zip.

    Attributes:
        names: Of all files, with ``/`` between folders, sorted.

    Raises:
        DataError: If there is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_dir():
            found = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        elif path.is_file():
            found = [name for name in self._opened().namelist() if not name.endswith("/")]
        else:
            raise DataError(f"there is no folder and no zip at {path}; check the path")
        self.names = tuple(sorted(name for name in found if PurePosixPath(name).parts and not _is_hidden(name)))

    def only(self, names: Iterable[str]) -> FileTree:
        """Return the same folder or zip with some of its files alone."""
        chosen, part = set(names), copy(self)
        part.names = tuple(name for name in self.names if name in chosen)
        return part

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            DataError: If it cannot be read; names it.
        """
        try:
            return (self.path / name).read_bytes() if self.path.is_dir() else self._opened().read(name)
        # A zip's member may be damaged, encrypted, or compressed in an unknown way.
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, struct.error) as error:
            raise DataError(f"{self.shown(name)} cannot be read: {error}; repair or remove it") from error

    def stamp(self) -> str:
        """Return what changes with the files."""
        if not self.path.is_dir():
            stat = self.path.stat()
            return repr((stat.st_mtime_ns, stat.st_size))
        stats = [(self.path / name).stat() for name in self.names]
        return repr((self.names, [(stat.st_mtime_ns, stat.st_size) for stat in stats]))

    def shown(self, name: str) -> str:
        """Return how messages call a file."""
        return f"{self.path}/{name}"

    def _opened(self) -> zipfile.ZipFile:
        if self._archive is None:
            try:
                archive = zipfile.ZipFile(self.path)
            # Directories of archives may be damaged in as many ways as files.
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
                raise DataError(f"{self.path} must be a folder or a zip of one: {error}") from error
            require_entries(archive, str(self.path))
            self._archive = archive
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open zip behind: a copy in another process opens its own."""
        return {**self.__dict__, "_archive": None}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


@dataclass(frozen=True)
class Splits:
    """Names of training and held-out files, each with its name inside its split: ``(inside, name)``.

    Attributes:
        train: Empty where the data have no training folder.
        heldout: Never empty.
    """

    train: tuple[tuple[str, str], ...]
    heldout: tuple[tuple[str, str], ...]


def split_files(
    tree: FileTree,
    *,
    train: str | None = None,
    heldout: str | None = None,
    usable: Callable[[str], bool],
    form: str,
    top: Iterable[str] = (),
    moved: Callable[[str], str] = str,
) -> Splits:
    """Find the training and the held-out files.

    Args:
        tree: All files; one folder around everything else is looked through.
        train: Folder of the training files; by default ``train`` or ``training``, and none if there is neither.
        heldout: Folder of the held-out files; by default the first of ``test``, ``testing``, ``val``, ``valid`` and
            ``validation`` with usable files, else everything where there is no training folder.
        usable: Whether a name inside its split is one of the files that are wanted.
        form: How files must be laid out, for the message.
        top: Folders that may stand above the splits.
        moved: Name in which the split's folder comes first, of a name where it may come later.

    Raises:
        DataError: If a folder that is asked for has no such files, or nothing is held out.
    """
    folders = {*TRAIN_FOLDERS, *HELDOUT_FOLDERS, *top, *filter(None, (train, heldout))}
    names = [(moved(inside), name) for inside, name in _inside_one_folder(tree.names, folders)]

    def files(folder: str) -> tuple[tuple[str, str], ...]:
        prefix = f"{folder.strip('/')}/"
        found = ((inside.removeprefix(prefix), name) for inside, name in names if inside.startswith(prefix))
        return tuple((inside, name) for inside, name in found if usable(inside))

    def first(asked: str | None, usual: Sequence[str]) -> tuple[tuple[str, str], ...]:
        found = next(filter(None, map(files, usual if asked is None else [asked])), ())
        if asked is not None and not found:
            raise DataError(f"{tree.path} must have files in {asked}/: {form}; found none")
        return found

    training, held = first(train, TRAIN_FOLDERS), first(heldout, HELDOUT_FOLDERS)
    if not training and not held:
        held = tuple((inside, name) for inside, name in names if usable(inside))
    if not held:
        reason = "training files only" if training else "none"
        raise DataError(
            f"{tree.path} must hold {form}, in train/ and in test/ or val/, or held-out ones alone; found {reason}. "
            "Other folders are named by data.train and data.heldout"
        )
    return Splits(training, held)


def _inside_one_folder(names: Sequence[str], known: set[str]) -> list[tuple[str, str]]:
    """Return ``(name inside the root, name)``; the root is below a folder that holds everything, if that is unknown."""
    parts = [PurePosixPath(name).parts for name in names]
    tops = {part[0] for part in parts}
    firsts = {folder.split("/")[0] for folder in known}
    # A class of images may be all that there is: only a folder around splits is looked through.
    inner = {part[1] for part in parts if len(part) > 2}
    if len(tops) == 1 and not tops & firsts and inner & firsts:
        return [("/".join(part[1:]), name) for part, name in zip(parts, names, strict=True)]
    return [(name, name) for name in names]
