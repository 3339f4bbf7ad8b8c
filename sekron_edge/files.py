"""Files and folders that appear whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK_BYTES = 1 << 20


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes that name when the block succeeds.

    The temporary name keeps the suffix, since converters look at it. On an exception nothing is left behind, and a file
    that was at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it takes the place of ``path`` when the block succeeds.

    It is also for packages that are folders (``.mlpackage``). On an exception nothing is left behind, and a folder that
    was at ``path`` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as parent:
        temporary = Path(parent) / path.name
        temporary.mkdir()
        yield temporary
        if path.exists():
            os.replace(path, Path(parent) / "previous")
        os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def files_below(path: Path) -> list[Path]:
    """Return every file below ``path`` in sorted order; ``[path]`` if it is itself a file."""
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file())


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
    """Remove a folder and everything below it, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)


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
