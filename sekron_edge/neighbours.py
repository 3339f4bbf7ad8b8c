"""Importing a file with its neighbours, so that nothing else in the process sees them, or is shadowed by them.

A folder's modules are submodules of a package that exists for that folder only. Import statements in them look there
first, as a script's look in the script's folder: each module has its own ``__import__`` among its builtins. So it also
holds for imports that run later, in functions, and neither ``sys.path`` nor a name in ``sys.modules`` is taken.

A file in a package (a folder with ``__init__.py``) is that package's module, for relative and absolute imports. A file
that has changed since is imported anew, with its neighbours.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import itertools
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, ClassVar

from sekron_edge import files

_PREFIX = "_sekron_edge_files_"
_INIT = "__init__"
_numbers = itertools.count()


def import_file(path: Path) -> ModuleType:
    """Import a file as it is now, with what it imports from beside it.

    Raises:
        Exception: Whatever the file raises.
    """
    path = path.absolute()
    root, parts = _package(path)
    if root in _INSTALLED:
        return importlib.import_module(".".join(parts))
    importlib.invalidate_caches()
    space = _Namespace.of(root, path)
    try:
        return space.module(path, parts)
    except BaseException:
        space.forget()
        raise


def was_imported(file: Path) -> bool:
    """Whether a file was imported here, as one that was asked for or as a neighbour."""
    return file in _Namespace.sources


def _package(path: Path) -> tuple[Path, list[str]]:
    """Return the folder that holds a file's outermost package, and the file's dotted name from there."""
    folder, parts = path.parent, [] if path.stem == _INIT else [path.stem]
    while (folder / f"{_INIT}.py").is_file() and "." not in folder.name and folder.parent != folder:
        folder, parts = folder.parent, [folder.name, *parts]
    return folder, parts


_INSTALLED = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")}


class _Namespace:
    """The modules of one folder, under a name of their own.

    Args:
        first: The folder whose modules come before installed ones.
        last: Folders whose modules come after them, nearest first.
    """

    known: ClassVar[dict[tuple[Path, ...], _Namespace]] = {}
    names: ClassVar[dict[str, _Namespace]] = {}
    sources: ClassVar[set[Path]] = set()

    def __init__(self, first: Path, last: Sequence[Path]) -> None:
        self.name = f"{_PREFIX}{next(_numbers)}"
        self._first, self._last = first, last
        self._hashes: dict[Path, str] = {}
        self.builtins: Mapping[str, Any] = {**vars(builtins), "__import__": self._import}
        package = ModuleType(self.name)
        package.__path__ = [str(folder) for folder in (first, *last)]
        sys.modules[self.name] = package
        self.names[self.name] = self
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())

    @classmethod
    def of(cls, root: Path, path: Path) -> _Namespace:
        """Return the namespace of a file: the one that it had, if none of its modules has changed."""
        key = root, *(folder for folder in path.parents if folder != root)
        space = cls.known.get(key)
        if space is None or space._has_changed():
            space = cls.known[key] = cls(root, key[1:])
        return space

    @classmethod
    def named(cls, module: str) -> _Namespace | None:
        """Return the namespace that a module's full name belongs to."""
        return cls.names.get(module.partition(".")[0])

    def module(self, path: Path, parts: Sequence[str]) -> ModuleType:
        """Return the module of a file, imported if necessary; a name with dots is no name to import."""
        if all("." not in part for part in parts):
            return importlib.import_module(".".join([self.name, *parts]))
        name = ".".join([self.name, *(part.replace(".", "_") for part in parts)])
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path), self))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    def find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """Find a module, in the folders of the package that it is in."""
        spec = PathFinder.find_spec(name, path)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path, self)
            spec.cached = None
        return spec

    def remember(self, path: Path) -> None:
        """Note a file as it is when it is imported."""
        self._hashes[path] = files.sha256(path)
        self.sources.add(path)

    def forget(self) -> None:
        """Take back everything that was imported."""
        self.known.pop((self._first, *self._last), None)
        for name in [name for name in sys.modules if name == self.name or name.startswith(f"{self.name}.")]:
            del sys.modules[name]

    def _has_changed(self) -> bool:
        return any(not path.is_file() or files.sha256(path) != known for path, known in self._hashes.items())

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as the statement does: a neighbour where there is one of that name."""
        if level > 0 or not self._holds(name, fromlist or ()):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        module = builtins.__import__(f"{self.name}.{name}", globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[f"{self.name}.{name.partition('.')[0]}"]

    def _holds(self, name: str, fromlist: Sequence[str]) -> bool:
        top = name.partition(".")[0]
        beside = PathFinder.find_spec(top, [str(self._first)])
        if beside is not None and beside.origin is not None:
            imported = getattr(sys.modules.get(top), "__file__", None)
            return imported is None or Path(imported) != Path(beside.origin)
        if top in sys.modules or importlib.util.find_spec(top) is not None:
            return False
        # Folders without __init__.py are packages too, but only for the files in them: any folder may have a name.
        wanted = [name, *(f"{name}.{one}" for one in fromlist)]
        stems = [folder.joinpath(*one.split(".")) for folder in (self._first, *self._last) for one in wanted]
        return any(stem.with_name(f"{stem.name}.py").is_file() or (stem / f"{_INIT}.py").is_file() for stem in stems)


class _Finder(MetaPathFinder):
    """Finds the modules of namespaces."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, _: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module of a namespace; None for all others."""
        space = _Namespace.named(fullname)
        return None if space is None else space.find(fullname, path)


class _Loader(SourceFileLoader):
    """Runs a module's source with its namespace's imports; writes no bytecode into the user's folder."""

    def __init__(self, name: str, path: str, space: _Namespace) -> None:
        super().__init__(name, path)
        self._space = space

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the source as it is now."""
        path = self.get_filename(fullname)
        self._space.remember(Path(path))
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        """Run the module."""
        vars(module)["__builtins__"] = self._space.builtins
        super().exec_module(module)
