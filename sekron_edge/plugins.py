"""Plug-ins by name: those of this package and of others, under one entry-point group."""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from sekron_edge.errors import ConfigError

T = TypeVar("T")


class Plugins(Generic[T]):
    """Plug-ins of one kind by name: those of an entry-point group, and those registered in this process.

    Args:
        group: Of the entry points; each refers to one thing.
        kind: The kind of plug-in, for messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self._kind = kind
        self._registered: dict[str, T] = {}

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def register(self, name: str, thing: T) -> None:
        """Register a plug-in beside those found through entry points.

        Raises:
            ConfigError: If the name is taken.
        """
        if name in self.names():
            raise ConfigError(f"a {self._kind} named {name!r} exists; choose another name")
        self._registered[name] = thing

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self._installed, *self._registered})

    def find(self, name: str) -> T | None:
        """Return the plug-in of a name, imported if necessary; None if there is none."""
        if name in self._registered:
            return self._registered[name]
        thing: T | None = self._installed[name].load() if name in self._installed else None
        return thing

    def all(self) -> list[T]:
        """Return all plug-ins, sorted by name."""
        things = (self.find(name) for name in self.names())
        return [thing for thing in things if thing is not None]
