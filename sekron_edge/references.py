"""Things of the user's by reference: ``package.module:name``, or ``path/to/file.py:name``.

A file imports its neighbours as a script does, and those of its package as a package does; each folder's are its own
(`sekron_edge.neighbours`). An error in the user's code is one `ConfigError` with its file and line.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from sekron_edge import neighbours
from sekron_edge.errors import ConfigError, SekronEdgeError

_PYTHON = ".py"
_PACKAGE = Path(__file__).parent


def load(reference: str, what: str = "a thing") -> Any:
    """Return what a reference names.

    A module that is not installed is looked for below the current folder.

    Args:
        reference: ``package.module:name`` or ``path/to/file.py:name``; the name may have dots.
        what: The thing that is wanted, for messages, as ``a model``.

    Raises:
        ConfigError: If the reference is not of that form, there is no such file, module or name, or importing it fails;
            names the file and line of the user's that failed.
    """
    where, name = _parts(reference, what)
    with errors_in(reference):
        module = _module(where, what)
    try:
        return reduce(getattr, name.split("."), module)
    except AttributeError as error:
        public = [known for known in vars(module) if not known.startswith("_")]
        near = difflib.get_close_matches(name, public, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{where} has no {name!r} to make {what} with{hint}") from error


def located(reference: str, folder: Path) -> str:
    """Return a reference whose relative path starts at a folder; a module that is only there becomes its file."""
    where, separator, name = reference.rpartition(":")
    if where.endswith(_PYTHON):
        return f"{folder / where}:{name}"
    file = None if _is_installed(where) else _file_below(folder, where)
    return reference if file is None else f"{file}{separator}{name}"


@contextmanager
def errors_in(reference: str, doing: str = "") -> Iterator[None]:
    """Turn an error of the user's code into one `ConfigError`: file, line, the error's kind and its own message.

    Args:
        reference: Of that code; the line is the last one that ran in its files.
        doing: What the code was called for, for the message.
    """
    try:
        yield
    except SekronEdgeError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises; scripts end with SystemExit
        where, _, _ = reference.rpartition(":")
        place = _place(error, where)
        raise ConfigError(f"{place}: {doing and f'{doing}: '}{_said(error)}") from error


@contextmanager
def errors_of(*references: str) -> Iterator[None]:
    """Turn an error that the user's code raises, or that a library raises for it, into one `ConfigError`.

    An error that is raised elsewhere, below no code of theirs or below code of this package that theirs calls, stays as
    it is.

    Args:
        references: Of their code.
    """
    try:
        yield
    except SekronEdgeError:
        raise
    except Exception as error:
        frames = reversed(traceback.extract_tb(error.__traceback__))
        wheres = [reference.rpartition(":")[0] for reference in references]
        for frame in frames:
            if any(_is_theirs(frame.filename, where) for where in wheres):
                raise ConfigError(f"{frame.filename}, line {frame.lineno}: {_said(error)}") from error
            if _PACKAGE in Path(frame.filename).parents:
                break
        raise


def source(reference: str) -> Path:
    """Return the file that a reference's name is in.

    Raises:
        ConfigError: If there is none.
    """
    where, _, _ = reference.rpartition(":")
    if where.endswith(_PYTHON):
        return Path(where)
    with errors_in(reference, "looking for its file"):
        spec = importlib.util.find_spec(where)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(f"{where} must be a module in a file; there is no file of it")
    return Path(spec.origin)


def _parts(reference: str, what: str) -> tuple[str, str]:
    where, _, name = reference.rpartition(":")
    if not name or not (where.endswith(_PYTHON) or all(part.isidentifier() for part in where.split("."))):
        raise ConfigError(f"{what} must be 'package.module:name' or 'file.py:name', got {reference!r}")
    return where, name


def _module(where: str, what: str) -> ModuleType:
    if where.endswith(_PYTHON):
        if not Path(where).is_file():
            raise ConfigError(f"there is no file {where} to make {what} from")
        return neighbours.import_file(Path(where))
    if not _is_installed(where):
        file = _file_below(Path.cwd(), where)
        if file is not None:
            return neighbours.import_file(file)
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise  # a package that the module itself needs
        raise ConfigError(
            f"no module {where!r} to make {what} from: {error}. Install its package, or name a file as "
            f"path/to/file.py:name"
        ) from error


def _is_installed(module: str) -> bool:
    """Whether the outermost package of a module can be imported."""
    top = module.partition(".")[0]
    return not top or top in sys.modules or importlib.util.find_spec(top) is not None


def _file_below(folder: Path, module: str) -> Path | None:
    stem = folder.joinpath(*module.split("."))
    options = (stem.with_name(f"{stem.name}{_PYTHON}"), stem / f"__init__{_PYTHON}")
    try:
        return next((file for file in options if file.is_file()), None)
    except OSError:  # a name that no file can have
        return None


def _place(error: BaseException, where: str) -> str:
    """Return the file and line of the user's that failed: the last of theirs that ran."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}, line {error.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    theirs = [(file, line) for file, line in frames if _is_theirs(file, where)]
    return "{}, line {}".format(*theirs[-1]) if theirs else where


def _is_theirs(file: str, where: str) -> bool:
    """Whether a file is one of the user's: imported from a file, or in the outermost package of a module."""
    if neighbours.was_imported(Path(file)):
        return True
    module = sys.modules.get(where.partition(".")[0])
    origin = None if module is None else module.__file__
    if origin is None:
        return False
    is_package = Path(origin).stem == "__init__"
    return Path(origin).parent in Path(file).parents if is_package else file == origin


def _said(error: BaseException) -> str:
    """Return an error's kind and message, and what helps against it."""
    if isinstance(error, ModuleNotFoundError):
        return (
            f"it imports {error.name!r}, which is neither installed here nor a file beside it: install the package, or "
            "put the file there"
        )
    if isinstance(error, SystemExit):
        return (
            f"it ends the process when it is imported (SystemExit: {error}); put what a script does under "
            "if __name__ == '__main__'"
        )
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
