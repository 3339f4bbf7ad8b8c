"""Text that comes from another machine: shown to people, so it is plain and short."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

_MOST_CHARACTERS = 4000
_KEPT = "\n\t"


def plain(text: str) -> str:
    """Return a text in which what is not printed is a replacement character: terminals would obey it."""
    return "".join(one if one.isprintable() or one in _KEPT else "�" for one in text)


def decoded(content: bytes) -> str:
    """Return what was printed elsewhere, as plain text."""
    return plain(content.decode(errors="replace"))


PlainText = Annotated[str, AfterValidator(plain)]
"""A text from another machine, however long."""

Plain = Annotated[str, Field(max_length=_MOST_CHARACTERS), AfterValidator(plain)]
"""A short text in a message from another machine."""
