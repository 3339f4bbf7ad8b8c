"""Settings that users construct or write in files: what is wrong with one is one error that names it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from sekron_edge.errors import ConfigError

_LONGEST = 60

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)  # pydantic does not publish its name


class _Constructed(ModelMetaclass):
    """Turns the errors of a constructor's call into ours; those of validation keep the way to a nested key."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # a class is what is called
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as error:
            raise ConfigError(f"{cls.__name__}: {described(error, cls)}") from None  # type: ignore[arg-type]


class Settings(BaseModel, metaclass=_Constructed):
    """A frozen model without other keys than its own.

    Raises:
        ConfigError: If a value is wrong, or a key unknown; names it, and what to give.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def described(error: ValidationError, form: type[BaseModel]) -> str:
    """Return every problem of an error with its key and value, and the nearest key where there is no such.

    Args:
        error: Raised while ``form`` was validated.
        form: Decides which keys are known.
    """
    return "; ".join(_described(problem, form) for problem in error.errors(include_url=False))


def _described(problem: Any, form: type[BaseModel]) -> str:
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = list(_section(form, problem["loc"][:-1]).model_fields)
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where!r}; {hint}"
    return f"{where}: {problem['msg']}, got {_shown(problem['input'])}"


def _shown(value: object) -> str:
    said = repr(value)
    return said if len(said) <= _LONGEST else type(value).__name__


def _section(form: Any, path: tuple[str | int, ...]) -> Any:
    """Return the model that a path of keys leads to."""
    for part in path:
        annotation = form.model_fields[str(part)].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        form = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    return form
