"""What files may ask of memory: a few bytes must not become gigabytes."""

from __future__ import annotations

import os
import zipfile
import zlib

from sekron_edge.errors import DataError

MOST_PIXELS = 100_000_000
MOST_FILE_BYTES = 1 << 30
MOST_FILES = 10_000_000
# Photographs and recordings hardly shrink; what becomes so much larger was made for it.
_MOST_RATIO = 200
_ALWAYS_ALLOWED = 1 << 26


def require_size(unpacked: int, packed: int, name: str) -> None:
    """Refuse a member of an archive that would take too much memory.

    Args:
        unpacked: Its bytes.
        packed: Its bytes in the archive.
        name: For messages.

    Raises:
        DataError: If it is larger than 1 GiB, or more than 64 MiB and 200 times as large as in the archive.
    """
    if unpacked > MOST_FILE_BYTES or unpacked > max(_ALWAYS_ALLOWED, _MOST_RATIO * packed):
        raise DataError(
            f"{name} would be {unpacked:,} bytes, from {packed:,} in the archive: more than {MOST_FILE_BYTES:,}, or "
            f"{_MOST_RATIO} times as much. Unpack it, and give the folder"
        )


def require_entries(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an archive one of whose members is too large, or is said to be larger than all, or that has too many.

    Raises:
        DataError: If so; names the member.
    """
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise DataError(
            f"{name} has {len(entries):,} files, more than {MOST_FILES:,}: unpack it, and give a part of it"
        )
    stream = archive.fp
    assert stream is not None, "the archive is closed"
    before = stream.tell()
    whole = stream.seek(0, os.SEEK_END)
    stream.seek(before)
    for entry in entries:
        if entry.compress_size > whole:
            raise DataError(f"{name} cannot be read: {entry.filename} would be larger than the whole archive")
        require_size(entry.file_size, entry.compress_size, f"{entry.filename} in {name}")


def require_pixels(width: int, height: int, name: str) -> None:
    """Refuse an image that would take too much memory.

    Raises:
        DataError: If it has more than 100 million pixels.
    """
    if width * height > MOST_PIXELS:
        raise DataError(f"{name} has {width}x{height} pixels, more than {MOST_PIXELS:,}: make it smaller, or remove it")


def gunzipped(content: bytes, most: int) -> bytes:
    """Return the beginning of a gzip file's content, of at most so many bytes.

    Raises:
        zlib.error: If it is no such file.
        EOFError: If it is cut short.
    """
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    found = stream.decompress(content, most)
    if len(found) < most and not stream.eof:
        raise EOFError("it is cut short")
    return found
