"""Arguments of public functions: each of the wrong type is one error that names it, what came, and what to give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sekron_edge.errors import ConfigError

_LONGEST = 60
# Of these the value tells more than the type.
_SHOWN = (str, bytes, int, float, bool, type(None))


def require(value: object, kinds: type | tuple[type, ...], name: str, wanted: str) -> None:
    """Refuse a value of another type; ``True`` is no number.

    Args:
        value: What was given.
        kinds: The types that it may have.
        name: Of the argument.
        wanted: What to give, as ``a sekron_edge.Task``.

    Raises:
        ConfigError: If it is of another type.
    """
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ConfigError(f"{name} must be {wanted}; got {shown(value)}")


def require_count(value: object, name: str, least: int = 1) -> None:
    """Refuse what is no whole number, or too small.

    Raises:
        ConfigError: If it is.
    """
    require(value, int, name, f"a whole number of at least {least}")
    if isinstance(value, int) and value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}; got {value}")


def require_names(value: object, name: str, example: str) -> None:
    """Refuse what is no list of names: a single one would be taken letter by letter.

    Raises:
        ConfigError: If it is a single name, no list, empty, or holds something else.
    """
    named = list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else []
    if not named or not all(isinstance(one, str) for one in named):
        raise ConfigError(f'{name} must be a list of names, as ["{example}"]; got {shown(value)}')


def shown(value: Any) -> str:
    """Return a value as errors show it: its type, and a short one itself."""
    if value is None:
        return "None"
    said = f" {value!r}" if isinstance(value, _SHOWN) else ""
    return f"{type(value).__name__}{said if len(said) <= _LONGEST else f'{said[:_LONGEST]}...'}"
