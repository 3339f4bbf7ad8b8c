"""Tasks by name, and those of the user's by reference: ``task = "mine.py:task"``.

What a reference names is a function that returns a `Task`: the keys of ``[data]`` are its arguments, and their values
those that its annotations allow. Or it is a `TaskKind`, which says the same by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator, ConfigDict, create_model
from pydantic.errors import PydanticUserError

from sekron_edge import files, references
from sekron_edge.errors import ConfigError
from sekron_edge.task import Task
from sekron_edge.task_kinds import ConfigPath, DataSection, TaskKind, get_task_kind

# Arguments that a job gives by itself, as to a kind of task.
_GIVEN = ("seed", "cache")
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class _Arguments(DataSection):
    """``[data]`` as the arguments of a function."""

    model_config = ConfigDict(protected_namespaces=())

    _reference: ClassVar[str] = ""

    def cache_key(self) -> str:
        """Return the arguments, and what changes with the file that makes the task: it may hold the loss."""
        return f"{super().cache_key()} {files.sha256(references.source(self._reference))}"


class _AnyArguments(_Arguments):
    """Of a function with ``**arguments``."""

    model_config = ConfigDict(extra="allow")


def is_reference(task: str) -> bool:
    """Whether a job's ``task`` is the user's own, by reference, and no name of a kind."""
    return ":" in task


def task_kind(task: str) -> TaskKind[Any]:
    """Return the kind of a job's task.

    Args:
        task: The name of a kind, or a reference, as ``mine.py:task``.

    Raises:
        ConfigError: If no kind has that name, or the reference names neither a function nor a `TaskKind`.
    """
    if not is_reference(task):
        return get_task_kind(task)
    named = references.load(task, "a task")
    if isinstance(named, TaskKind):
        return named
    if not callable(named):
        raise ConfigError(
            f"{task} is a {type(named).__name__}: name a function that returns a sekron_edge.Task, or a TaskKind"
        )
    return _kind_of(named, task)


def made_task(kind: TaskKind[Any], section: DataSection, reference: str, *, seed: int, cache: Path) -> Task:
    """Make a task of the user's.

    Raises:
        ConfigError: If that fails, with the file and line that failed; or no `Task` is made.
    """
    with references.errors_in(reference, "making the task"):
        task: object = kind.load(section, seed=seed, cache=cache)
    if not isinstance(task, Task):
        raise ConfigError(f"{reference} must return a sekron_edge.Task; it returned {type(task).__name__}")
    return task


def _kind_of(function: Callable[..., Task], reference: str) -> TaskKind[Any]:
    with references.errors_in(reference, "reading its annotations"):
        parameters = inspect.signature(function, eval_str=True).parameters
    is_open = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    given = [name for name in _GIVEN if name in parameters]

    def load(section: _Arguments, /, **job: Any) -> Task:
        return function(**dict(section), **{name: job[name] for name in given})

    base = _AnyArguments if is_open else _Arguments
    try:
        section = create_model("Arguments", __base__=base, **dict(_fields(parameters.values(), reference)))
    except PydanticUserError as error:
        raise ConfigError(f"{reference} has an argument that no key of [data] can be: {error.message}") from error
    section._reference = reference
    return TaskKind(reference, section, load)


def _fields(parameters: Any, reference: str) -> Iterator[tuple[str, Any]]:
    """Return the fields of a section, one for each argument that ``[data]`` gives."""
    for parameter in parameters:
        if parameter.kind not in _NAMED or parameter.name in _GIVEN:
            continue
        if parameter.name.startswith("_") or hasattr(_Arguments, parameter.name):
            raise ConfigError(
                f"{reference} has an argument {parameter.name!r}, which no key of [data] can be: choose another name"
            )
        empty = inspect.Parameter.empty
        annotation = Any if parameter.annotation is empty else parameter.annotation
        if Path in (annotation, *get_args(annotation)):
            annotation = Annotated[annotation, _EXPANDED]
        yield parameter.name, (annotation, ... if parameter.default is empty else parameter.default)


# Paths are as in the sections of other tasks: with ${NAME}, and relative to the file.
_EXPANDED = next(each for each in get_args(ConfigPath) if isinstance(each, BeforeValidator))
