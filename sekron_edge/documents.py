"""TOML and JSON that others wrote: whatever is wrong with one is one error that names it, in little time and memory.

Text is UTF-8, with a byte order mark or without.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from sekron_edge.errors import SekronEdgeError

# People write these files: what is larger is something else. Dates and keys cost tomllib more than their length.
_MOST_TOML_BYTES = 1 << 20
_DEEPEST = 64
# A key of more parts than that, with dots between. tomllib takes time by the square of their number before their depth
# shows.
_QUOTED = r"""|"[^"\n]*+"|'[^'\n]*+'"""
_DEEP_KEY = re.compile(rf"(?:(?<![\w-])[\w-]++{_QUOTED})(?:[ \t]*\.[ \t]*(?:[\w-]++{_QUOTED})){{{_DEEPEST}}}")
_INTEGERS = range(-(1 << 63), 1 << 63)
_LONGEST_PLACE = 80

_Record = TypeVar("_Record")


def read_toml(path: Traversable, refused: type[SekronEdgeError], shown: object = None) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Args:
        path: Of the file.
        refused: The kind of error to raise.
        shown: What messages call the file; by default its path.

    Raises:
        SekronEdgeError: Of the kind ``refused``: if it cannot be read, has more than 1 MiB, is not TOML in UTF-8, or
            holds tables and lists of more than 64 levels, integers of more than 64 bits, or text with a NUL character.
    """
    shown = path if shown is None else shown
    content = _content(path, refused, shown, _MOST_TOML_BYTES + 1)
    if len(content) > _MOST_TOML_BYTES:
        raise refused(f"{shown} cannot be read as TOML: it has more than {_MOST_TOML_BYTES:,} bytes")
    text = decoded(content, shown, refused)
    try:
        if _DEEP_KEY.search(text):
            raise ValueError(f"a key has more than {_DEEPEST} parts")
        tables = tomllib.loads(text)
        for value, keys in _values(tables):
            _require_plain(value, keys)
    except (ValueError, RecursionError) as error:  # tomllib's own errors are ValueErrors, as are those of large numbers
        raise refused(f"{shown} cannot be read as TOML: {_cause(error)}") from error
    return tables


def parsed_json(content: bytes, shown: object, refused: type[SekronEdgeError]) -> Any:
    """Return what a JSON document holds.

    Args:
        content: Of the file.
        shown: What messages call it.
        refused: The kind of error to raise.

    Raises:
        SekronEdgeError: Of the kind ``refused``: if it is not JSON in UTF-8, is nested by more than 200 levels, or
            holds an integer of more than 4300 digits.
    """
    text = decoded(content, shown, refused)
    try:
        return from_json(text)
    except ValueError as error:
        raise refused(f"{shown} cannot be read as JSON: {error}") from error


def read_record(
    path: Traversable, form: type[_Record] | TypeAdapter[_Record], refused: type[SekronEdgeError], remedy: str
) -> _Record:
    """Return a record from a file of ours, in JSON. Arguments and errors are those of `parsed_record`."""
    return parsed_record(_content(path, refused, path), form, path, refused, remedy)


def parsed_record(
    content: bytes | str,
    form: type[_Record] | TypeAdapter[_Record],
    shown: object,
    refused: type[SekronEdgeError],
    remedy: str,
) -> _Record:
    """Return a record of ours, which somebody may have changed since it was written.

    Args:
        content: In JSON.
        form: Of the record.
        shown: What messages call its file, or its place in one.
        refused: The kind of error to raise.
        remedy: What to do, for the message.

    Raises:
        SekronEdgeError: Of the kind ``refused``: if it is no such record; names the first thing that is wrong.
    """
    adapter = form if isinstance(form, TypeAdapter) else TypeAdapter(form)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:_LONGEST_PLACE]
        raise refused(f"{shown} cannot be read: {f'{place}: ' * bool(place)}{first['msg']}; {remedy}") from error
    except SekronEdgeError as error:  # what a record holds may refuse by itself what it is given
        raise refused(f"{shown} cannot be read: {error}; {remedy}") from error


def _content(path: Traversable, refused: type[SekronEdgeError], shown: object, most: int = -1) -> bytes:
    """Return a file's content, of which no more than ``most`` bytes are read: files without an end are there too."""
    try:
        with path.open("rb") as stream:
            return bytes(stream.read(most))
    except (OSError, ValueError) as error:  # a name with a NUL character is a ValueError
        cause = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise refused(f"{shown} cannot be read: {cause}") from error


def read_text(path: Traversable, refused: type[SekronEdgeError]) -> str:
    """Return a file's text.

    Raises:
        SekronEdgeError: Of the kind ``refused``: if it cannot be read, or is not in UTF-8; names it.
    """
    return decoded(_content(path, refused, path), path, refused)


def decoded(content: bytes, shown: object, refused: type[SekronEdgeError]) -> str:
    """Return the text of a document.

    Raises:
        SekronEdgeError: Of the kind ``refused``: if it is not in UTF-8; names it as ``shown``.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(
            f"{shown} cannot be read: it is not text in UTF-8 ({error.reason} at byte {error.start}); save it in UTF-8"
        ) from error


def _values(value: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield everything in a document with the keys that lead to it, also beyond the depth that the stack allows."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(value, ())]
    while waiting:
        value, keys = waiting.pop()
        yield value, keys
        if isinstance(value, dict):
            waiting += [(below, (*keys, key)) for key, own in value.items() for below in (key, own)]
        elif isinstance(value, list):
            waiting += [(below, (*keys, str(place))) for place, below in enumerate(value)]


def _require_plain(value: Any, keys: tuple[str, ...]) -> None:
    """Refuse what settings cannot mean, and what later code trips over where it shows or compares it."""
    if len(keys) > _DEEPEST:
        raise ValueError(f"it is nested by more than {_DEEPEST} levels")
    where = ".".join(keys)[:_LONGEST_PLACE]
    if isinstance(value, int) and value not in _INTEGERS:
        raise ValueError(f"{where} is an integer of more than 64 bits")
    if isinstance(value, str) and "\0" in value:
        raise ValueError(f"{where} has a NUL character, {value[:_LONGEST_PLACE]!r}")


def _cause(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested by more than {_DEEPEST} levels"
    if "set_int_max_str_digits" in str(error):
        return "it holds an integer of more than 64 bits"
    return str(error)
