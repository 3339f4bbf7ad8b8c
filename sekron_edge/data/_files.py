"""Files of a folder, or of a zip of one: which there are, and which do not count."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

from sekron_edge.data._limits import MOST_FILE_BYTES, require_entries, require_size
from sekron_edge.data._skipped import HIDDEN, NO_FILE, Skipped, skipped
from sekron_edge.errors import DataError

# What macOS adds to zips, and Synology's and ext's systems to folders.
_ADDED = {"__MACOSX", "@eaDir", "lost+found"}
_BEGINNING_BYTES = 4096

_Found = Iterator[tuple[str, str | None]]


class FileTree:
    """The files of a folder, or of a zip of one, by their names relative to it; each is read when asked for.

    Links to folders are followed. What is hidden, and what systems add, does not count.

    Args:
        path: The folder or the zip.

    Attributes:
        names: Of all files, with ``/`` between folders, sorted.
        skipped: What is there and does not count; of a hidden folder its name alone.

    Raises:
        DataError: If there is neither, or a folder in it cannot be listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        if path.is_dir():
            found = _in_folder(path)
        elif path.is_file():
            found = self._in_zip()
        else:
            raise DataError(f"there is no folder and no zip at {path}; check the path")
        names, reasons = set[str](), dict[str, set[str]]()
        for name, why in found:
            (names if why is None else reasons.setdefault(why, set())).add(name)
        self.names = tuple(sorted(names))
        self.skipped: tuple[Skipped, ...] = skipped(reasons)

    def only(self, names: Iterable[str]) -> FileTree:
        """Return the same folder or zip with some of its files alone."""
        chosen, part = set(names), copy(self)
        part.names = tuple(name for name in self.names if name in chosen)
        return part

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            DataError: If it cannot be read, or is larger than 1 GiB; names it.
        """
        try:
            if not self.path.is_dir():
                return self._opened().read(self._members[name])
            require_size(self.size(name), MOST_FILE_BYTES, self.shown(name))
            return (self.path / name).read_bytes()
        except DataError:
            raise
        # A zip's member may be damaged, encrypted, or compressed in an unknown way.
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, struct.error) as error:
            raise DataError(f"{self.shown(name)} cannot be read: {error}; repair or remove it") from error

    def size(self, name: str) -> int:
        """Return a file's bytes, without reading it."""
        return self._members[name].file_size if name in self._members else (self.path / name).stat().st_size

    def beginning(self, name: str) -> bytes:
        """Return what tells most files of one size apart: 4 KiB of one in a folder, the checksum of one in a zip.

        Raises:
            DataError: If it cannot be read; names it.
        """
        if name in self._members:
            return self._members[name].CRC.to_bytes(4, "big")
        try:
            with (self.path / name).open("rb") as stream:
                return stream.read(_BEGINNING_BYTES)
        except OSError as error:
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

    def _in_zip(self) -> _Found:
        for member in self._opened().infolist():
            # Some programs write Windows' separators, or begin with the folder itself.
            whole = member.filename.replace("\\", "/")
            parts = [part for part in whole.split("/") if part not in ("", ".")]
            if whole.endswith("/") or not parts:
                continue
            name = "/".join(parts)
            self._members[name] = member
            yield name, HIDDEN if any(map(_is_hidden, parts)) else None

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


def _in_folder(path: Path) -> _Found:
    """Yield the files below a folder, each with the reason why it does not count.

    Raises:
        DataError: If a folder cannot be listed.
    """
    # Each with its name, which is empty or ends with a slash, and the identities of the folders that it is in.
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(path, "", frozenset())]
    while waiting:
        folder, prefix, above = waiting.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            raise DataError(f"the folder {folder} cannot be listed: {error.strerror or error}") from error
        here = (status.st_dev, status.st_ino)
        # A link that leads to a folder which it is in would never end.
        if here in above:
            yield prefix.rstrip("/"), NO_FILE
            continue
        for entry in listed:
            name = f"{prefix}{entry.name}"
            if _is_hidden(entry.name):
                yield name, HIDDEN
            elif entry.is_dir():
                waiting.append((folder / entry.name, f"{name}/", above | {here}))
            else:
                yield name, None if entry.is_file() else NO_FILE


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part in _ADDED
