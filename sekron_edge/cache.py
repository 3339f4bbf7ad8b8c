"""Results that cost time, kept in a folder. What is damaged there, or of another release, is made again.

Beside each file lies its hash, in a file of the same name with ``.sha256``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sekron_edge import files

Result = TypeVar("Result")
_LOG = logging.getLogger("sekron_edge")


def cached(
    path: Path, *, read: Callable[[Path], Result], make: Callable[[], Result], write: Callable[[Result, Path], object]
) -> Result:
    """Return what is kept at a path, or make it and keep it.

    Args:
        path: Its name says everything that decides the result.
        read: Reads the file.
        make: Makes the result.
        write: Writes it to a path.
    """
    found = known(path, read)
    if found is not None:
        return found
    made = make()
    keep(path, lambda temporary: write(made, temporary))
    return made


def known(path: Path, read: Callable[[Path], Result]) -> Result | None:
    """Return what is kept at a path; None if nothing is, or nothing that can be used, which is said."""
    try:
        if not path.is_file():
            return None
        if not _hash_of(path).is_file():
            raise ValueError("its hash is missing")
        if _hash_of(path).read_text(encoding="ascii").strip() != files.sha256(path):
            raise ValueError("its hash is another one")
        return read(path)
    except Exception as error:  # noqa: BLE001  # whatever is wrong with a file of ours, it can be made again
        _LOG.warning("%s cannot be used and is made again: %s", path, error)
        return None


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Keep a result, whole or not at all. A folder that cannot be written to costs time only, which is said.

    Args:
        path: Where.
        write: Writes it to a path.
    """
    try:
        with files.whole_file(path) as temporary:
            write(temporary)
            digest = files.sha256(temporary)
        files.write_text(_hash_of(path), f"{digest}\n")
    except OSError as error:
        _LOG.warning("a result is not kept for the next time, %s cannot be written: %s", path, error)


def keep_text(path: Path, text: str) -> None:
    """Keep a text, as `keep` does."""
    keep(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _hash_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
