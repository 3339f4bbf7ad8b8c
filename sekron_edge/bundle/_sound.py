"""What a manifest cannot say. Its seal is no signature: whoever alters a manifest can seal it again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from sekron_edge.artifacts import Artifact
from sekron_edge.bundle._manifest import Manifest
from sekron_edge.errors import BundleError

_POSITIVE = {"median_ms", "min_ms", "runs", "threads", "averaged"}
_NOT_NEGATIVE = {
    "size_bytes", "dense_bytes", "dense_arena_bytes", "peak_memory_bytes", "p90_ms", "iqr_ms", "milliseconds",
    "spread_ms", "parameters", "macs", "samples", "scored_samples", "warmup", "seed",
}  # fmt: skip
_HASH = re.compile(r"[0-9a-f]{64}")


def require_sound(content: bytes, manifest: Manifest, path: Path) -> None:
    """Refuse values that no job writes: numbers that are none, names that lead out of the bundle, keys given twice.

    Args:
        content: The manifest's file.
        manifest: The same, read.
        path: Of the file, for messages.

    Raises:
        BundleError: If there is one; names it.
    """
    problem = next(_problems(content, manifest), None)
    if problem is not None:
        raise BundleError(f"{path} says what cannot be: {problem}. Build the bundle again.")


def _problems(content: bytes, manifest: Manifest) -> Iterator[str]:
    twice: list[str] = []

    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice.append(next(name for name in names if names.count(name) > 1))
        return made

    # Its depth and its digits have limits since it was read as a manifest.
    yield from _numbers(json.loads(content, object_pairs_hook=paired), "")
    yield from (f"the key {name!r} is given twice" for name in twice)
    if not _is_name(manifest.name):
        yield f"the name is {manifest.name!r}, which is no file's"
    for name, entry in manifest.files.items():
        if not _is_inside(name):
            yield f"the file {name!r} is not in the bundle"
        if not _HASH.fullmatch(entry.sha256):
            yield f"the hash of {name!r} is {entry.sha256[:70]!r}"
    for delivery in manifest.deliveries:
        named = [*_paths(delivery.artifact), delivery.snippet, *delivery.sources]
        yield from (f"{name!r} is delivered, and not among the files" for name in named if not _has(manifest, name))


def _numbers(value: Any, key: str) -> Iterator[str]:
    """Yield what is wrong with the numbers below a value."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _numbers(below, name)
    elif isinstance(value, list):
        for below in value:
            yield from _numbers(below, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        lowest = 0 if key in _POSITIVE | _NOT_NEGATIVE else -math.inf
        # An integer is finite, and may be too large for a float.
        finite = isinstance(value, int) or math.isfinite(value)
        if not finite or value < lowest or (key in _POSITIVE and value == 0):
            yield f"{key} is {value!r}"


def _is_name(text: str) -> bool:
    return text.isprintable() and text not in ("", ".", "..") and "/" not in text and "\\" not in text


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and path.as_posix() == name and all(map(_is_name, path.parts)) and bool(path.parts)


def _paths(artifact: Artifact) -> list[str]:
    before = artifact.compiled_from
    return [artifact.path.as_posix(), *([] if before is None else _paths(before))]


def _has(manifest: Manifest, name: str) -> bool:
    """Whether a file, or a folder with files in it, is among the bundle's files."""
    return name in manifest.files or (_is_inside(name) and any(file.startswith(f"{name}/") for file in manifest.files))
