"""What every exporter does around its SDK: finds it, imports it quietly, makes one error of whatever it raises."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sekron_edge.errors import ExportError, MissingDependencyError
from sekron_edge.silence import last_words, silenced

if TYPE_CHECKING:
    import torch


_LONGEST_CAUSE = 1000


@dataclass(frozen=True)
class Availability:
    """Whether something can be used here, and if not, why and what to do; the versions of what it stands on."""

    ok: bool
    reason: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sdk:
    """The packages that an exporter stands on.

    Attributes:
        packages: From a package's name to a module of it. Artifacts record their versions, in this order.
        install: The command that installs them.
    """

    packages: Mapping[str, str]
    install: str

    def availability(self) -> Availability:
        """Say whether all packages are installed, without importing any."""
        if not all(map(self.has, self.packages)):
            return Availability(False, f"install it with: {self.install}")
        return Availability(True, versions=self.versions())

    def has(self, package: str) -> bool:
        """Say whether a package is installed."""
        return find_spec(self.packages[package]) is not None

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that are installed."""
        return {package: version(package) for package in self.packages if self.has(package)}

    def require(self, *packages: str) -> None:
        """Refuse to go on without packages; without any of them if none is named.

        Raises:
            MissingDependencyError: If one is absent; says how to install it.
        """
        for package in packages or self.packages:
            if not self.has(package):
                raise MissingDependencyError(package, install=self.install)

    def imported(self, package: str, module: str) -> Any:
        """Import a module of a package, quietly.

        Raises:
            MissingDependencyError: If the package is absent.
        """
        self.require(package)
        with silenced():
            return importlib.import_module(module)


@contextmanager
def converting(model: torch.nn.Module, exporter: str, doing: str = "converting") -> Iterator[None]:
    """Keep a converter quiet, and turn whatever it raises into one error.

    Raises:
        ExportError: If it fails: names the format, the model and the cause, with the end of what was said.
    """
    from sekron_edge.nn import unfused_attention

    with silenced() as spoken, unfused_attention():
        try:
            yield
        except ExportError:
            raise
        except Exception as error:  # converters raise whatever their passes raise
            cause = str(error)
            cause = cause if len(cause) <= _LONGEST_CAUSE else f"{cause[:_LONGEST_CAUSE]} ..."
            raise ExportError(
                f"{exporter}: {doing} {type(model).__name__} failed: {cause}\n{last_words(spoken)}"
            ) from error


@contextmanager
def reading(path: Path, runtime: str, errors: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
    """Keep a runtime quiet that loads a file, and turn what it raises into one error.

    Args:
        path: Of the file.
        runtime: Its name, for people.
        errors: What it raises of files that it cannot read.

    Raises:
        ExportError: If it cannot be read; names the file and the cause.
    """
    try:
        with silenced():
            yield
    except errors as error:
        raise ExportError(f"{path} cannot be read by {runtime}, export it again: {error}") from error
