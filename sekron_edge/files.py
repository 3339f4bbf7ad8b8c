"""Files and folders that appear whole or not at all, even if the power fails, and their hashes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20
# Ends the names of folders that hold what is not finished; nobody else gives such names.
_UNFINISHED = ".sekron-edge"
_PREVIOUS = "previous"
# fcntl.h and linux/fs.h: names are relative to the working directory; swap the two.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes that name when the block succeeds.

    The temporary name keeps the suffix, since converters look at it. On an exception nothing is left behind, and a file
    that was at ``path`` is untouched.
    """
    with _unfinished(path) as temporary:
        yield temporary
        _write_through(temporary)
        os.replace(temporary, path)
        _write_through_names(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it takes the place of ``path`` when the block succeeds.

    It is also for packages that are folders (``.mlpackage``). On an exception nothing is left behind, and a folder that
    was at ``path`` is untouched. A process that is killed leaves the old folder at ``path`` or the new one. Where the
    file system cannot swap two names, there may be none for a moment: then `recover` brings the old one back.
    """
    with _unfinished(path) as temporary:
        temporary.mkdir()
        yield temporary
        _write_through(temporary)
        if not path.exists():
            os.replace(temporary, path)
        elif not _swapped(temporary, path):
            os.replace(path, temporary.with_name(_PREVIOUS))
            os.replace(temporary, path)
        _write_through_names(path.parent)


def recover(path: Path) -> None:
    """Bring back what was at ``path`` when a process was killed while it replaced it, and remove what it left behind.

    Nobody may be writing to ``path``.
    """
    for left in path.parent.glob(f".{path.name}-*{_UNFINISHED}"):
        previous = left / _PREVIOUS
        if previous.exists() and not path.exists():
            os.replace(previous, path)
        shutil.rmtree(left)


def is_unfinished(path: Path) -> bool:
    """Whether it is a temporary folder that a killed process left behind."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Yield a path of the same name, in a temporary folder beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", suffix=_UNFINISHED, dir=path.parent) as folder:
        yield Path(folder) / path.name


def _swapped(one: Path, other: Path) -> bool:
    """Swap two names in one step, if the system and the file system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _write_through(path: Path) -> None:
    """Make sure that a file, or all below a folder, is on the disk: a name must not appear before what it names."""
    for file in files_below(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    for folder in [path, *path.rglob("*")] if path.is_dir() else []:
        if folder.is_dir():
            _write_through_names(folder)


def _write_through_names(folder: Path) -> None:
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def files_below(path: Path) -> list[Path]:
    """Return every file below ``path`` in sorted order; ``[path]`` if it is itself a file."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file())


def irregular(path: Path) -> list[Path]:
    """Return what is below a folder and is neither a file nor a folder with something in it, as links and pipes."""

    def regular(entry: Path) -> bool:
        mode = entry.lstat().st_mode
        return stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and any(entry.iterdir()))

    return sorted(entry for entry in path.rglob("*") if not regular(entry))


def sha256(path: Path) -> str:
    """Hash a file, or a folder as the sequence of its relative names and contents."""
    digest = hashlib.sha256()
    for file in files_below(path):
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
            digest.update(str(file.stat().st_size).encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def size_bytes(path: Path) -> int:
    """Return the size of a file, or the sum over a folder's files, in bytes."""
    return sum(file.stat().st_size for file in files_below(path))


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder to ``target``, which must not exist."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def remove_folder(path: Path) -> None:
    """Remove a folder and everything below it, if it exists; nobody ever sees a part of it."""
    if path.is_dir():
        with _unfinished(path) as away:
            os.replace(path, away)


def cache_folder() -> Path:
    """Return the folder of results that cost time: ``$SEKRON_EDGE_CACHE``, or ``~/.cache/sekron-edge``."""
    return Path(os.environ.get("SEKRON_EDGE_CACHE") or Path.home() / ".cache" / "sekron-edge")


def fingerprint(*parts: object) -> str:
    """Hash everything that decides a result, for the name of its file in the cache; 16 hexadecimal digits.

    Bytes count as they are, everything else by its ``repr``.
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(str(len(content)).encode() + b"\0" + content)
    return digest.hexdigest()[:16]
