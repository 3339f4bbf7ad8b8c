"""Kinds of tasks by name: the meaning of ``task = "NAME"`` in a job's file, and the keys of its ``[data]``.

A kind is found through the entry-point group ``sekron_edge.tasks``, or registered.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BeforeValidator, ConfigDict

from sekron_edge.errors import ConfigError
from sekron_edge.plugins import Plugins
from sekron_edge.settings import Settings
from sekron_edge.task import Task

_VARIABLE = re.compile(r"\$\{(\w+)\}")


def _expanded(given: Any) -> Any:
    """Put environment variables, written ``${NAME}``, into a path.

    Raises:
        ConfigError: If one is not set.
    """
    if not isinstance(given, str):
        return given

    def value(variable: re.Match[str]) -> str:
        if variable[1] not in os.environ:
            raise ConfigError(f"{given!r} needs the environment variable {variable[1]}, which is not set")
        return os.environ[variable[1]]

    return _VARIABLE.sub(value, given)


ConfigPath = Annotated[Path, BeforeValidator(_expanded)]
"""A path in a job's file: it may hold ``${NAME}``, and a relative one starts at the file's folder."""


class Reference(str):
    """Something of the user's by reference, as ``mine.py:decode`` (`sekron_edge.references`)."""

    __slots__ = ()


ConfigReference = Annotated[
    Reference, BeforeValidator(lambda given: Reference(given) if isinstance(given, str) else given)
]
"""A reference in a job's file: a relative path in it starts at the file's folder."""


class DataSection(Settings):
    """The part of a job's ``[data]`` that a kind of task reads: subclass it, with one field per key."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def cache_key(self) -> str:
        """Return the part of a trained model's key in the cache that the data themselves do not decide."""
        return repr(self)


Section = TypeVar("Section", bound=DataSection)
_Read_contra = TypeVar("_Read_contra", bound=DataSection, contravariant=True)


class LoadTask(Protocol[_Read_contra]):
    """Loads the data that a section names, and makes their task."""

    def __call__(self, section: _Read_contra, /, *, seed: int, cache: Path) -> Task:
        """Return the task.

        Args:
            section: The job's ``[data]``.
            seed: The job's seed, for everything random.
            cache: Folder for results that take long.

        Raises:
            ConfigError: If keys do not go together.
            DataError: If the data is missing or broken.
        """
        ...


@dataclass(frozen=True)
class TaskKind(Generic[Section]):
    """A kind of task that jobs can name.

    Attributes:
        name: The value of ``task`` in a job's file.
        section: The keys of ``[data]``, and their values.
        load: Makes a task of a section.
    """

    name: str
    section: type[Section]
    load: LoadTask[Section]


_KINDS: Plugins[TaskKind[Any]] = Plugins("sekron_edge.tasks", "kind of task")


def register_task(kind: TaskKind[Any]) -> None:
    """Make a kind of task known by its name, beside those found through entry points.

    Raises:
        ConfigError: If the name is taken.
    """
    _KINDS.register(kind.name, kind)


def task_names() -> list[str]:
    """Return the names of all known kinds of tasks, sorted."""
    return _KINDS.names()


def get_task_kind(name: str) -> TaskKind[Any]:
    """Return the kind of task called ``name``.

    Raises:
        ConfigError: If there is none; lists those that exist.
    """
    kind = _KINDS.find(name)
    if kind is None:
        raise ConfigError(f"no kind of task {name!r}; known kinds: {', '.join(task_names())}")
    return kind
