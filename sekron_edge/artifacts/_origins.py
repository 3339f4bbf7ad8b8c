"""How another process of this machine finds an exporter that was registered in this one."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict

from sekron_edge.artifacts._contracts import Exporter
from sekron_edge.artifacts._registry import ENTRY_POINT_GROUP, exporter_names, get_exporter, is_registered
from sekron_edge.errors import ConfigError

_MAIN = "__main__"
_READ_AGAIN = "__sekron_edge_main__"  # the name of a script that is read, and not run
_reading: list[str] = []


class ExporterOrigin(BaseModel):
    """Where an exporter's class is from.

    Attributes:
        module, qualname: By which it is imported.
        file: Of the module, which is read where it cannot be imported by name: a script, or a test.
        search_path: Where this process looks for modules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    module: str
    qualname: str
    file: Path | None
    search_path: tuple[str, ...]


def exporter_origin(name: str) -> ExporterOrigin | None:
    """Return where a registered exporter is from; None of one that every process finds, by its entry point.

    Raises:
        ConfigError: If no other process can find it; says what to do.
    """
    if not is_registered(name):
        return None
    made_of = type(get_exporter(name))
    module = sys.modules[made_of.__module__]
    file = getattr(module, "__file__", None)
    if "<locals>" in made_of.__qualname__ or (file is None and made_of.__module__ == _MAIN):
        raise _not_found(name, f"{made_of.__qualname__} of {made_of.__module__} cannot be imported there")
    if _reading:
        raise _not_found(name, f'what {_reading[-1]} does must stand below `if __name__ == "__main__":`')
    return ExporterOrigin(
        module=made_of.__module__,
        qualname=made_of.__qualname__,
        file=None if file is None else Path(file).resolve(),
        search_path=tuple(str(Path(folder).resolve()) for folder in sys.path),
    )


def exporter_of(name: str, origin: ExporterOrigin | None) -> Exporter:
    """Return an exporter of another process: what its module registers, or else its class made without arguments.

    Raises:
        ConfigError: If it cannot be made; says what to do.
    """
    if origin is None or name in exporter_names():
        return get_exporter(name)
    sys.path += [folder for folder in origin.search_path if folder not in sys.path]
    module = _module(name, origin)
    if is_registered(name):
        return get_exporter(name)
    try:
        exporter: Exporter = reduce(getattr, origin.qualname.split("."), module)()  # type: ignore[operator]
    except (AttributeError, TypeError) as error:
        raise _not_found(name, f"{origin.qualname}() cannot be made there: {error}") from error
    if exporter.name != name:
        raise _not_found(name, f"{origin.qualname}() is named {exporter.name!r} there")
    return exporter


def _module(name: str, origin: ExporterOrigin) -> ModuleType:
    """Import the module by its name, or read its file under another: what a script does when it runs is not wanted."""
    _reading.append(origin.module if origin.file is None else origin.file.name)
    try:
        if origin.module != _MAIN:
            try:
                return importlib.import_module(origin.module)
            except ModuleNotFoundError as error:
                if origin.file is None or not f"{origin.module}.".startswith(f"{error.name}."):
                    raise
        spec = spec_from_file_location(_READ_AGAIN, str(origin.file))
        if spec is None or spec.loader is None:
            raise _not_found(name, f"{origin.file} is no file of Python")
        module = sys.modules[_READ_AGAIN] = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        _reading.pop()


def _not_found(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"artifacts are measured in a process of their own, which does not find the exporter {name!r}: {why}; define "
        "its class at the top of a module, to be made without arguments, or name it in the entry-point group "
        f"{ENTRY_POINT_GROUP}"
    )
