"""Every error that sekron-edge raises on purpose.

::

    SekronEdgeError
    ├── ConfigError                         a config, option, budget or model reference is wrong
    │   └── ProfileError                    a device profile is wrong, or no profile has that name
    ├── StructureError                      a structure does not fit its tensor
    │   └── RankError                       a rank is out of range
    ├── UnsupportedLayerError(ValueError)   a layer, or its weights, cannot be factorized
    ├── InfeasibleBudgetError(ValueError)   no plan keeps the budget; carries the nearest points
    ├── MissingDependencyError(ImportError) an optional package is absent; names the extra
    ├── DataError(ValueError)               data is absent or broken
    ├── ExportError(RuntimeError)           a model could not be converted, or a file not loaded
    │   └── NotRunnableError                this machine has no runtime for the artifact
    ├── VerificationError(RuntimeError)     an artifact does not compute what its source computes
    ├── DeviceError(RuntimeError)           a measurement could not be made
    │   ├── UnreachableError                a device is away or busy: trying again may help
    │   └── UnsupportedError                a device cannot run such an artifact
    └── BundleError(ValueError)             a bundle is incomplete, altered or of another version

A message says what must hold, what came, and what to do. Configs and structures are pydantic models: their errors
are not ValueErrors, since pydantic would wrap those in its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


class SekronEdgeError(Exception):
    """The root: catch this to catch everything that sekron-edge raises on purpose.

    ``exit_code`` is the exit code of the command line when the error reaches it.
    """

    exit_code = 2


class ConfigError(SekronEdgeError):
    """A config file, an option, a budget or a model reference is wrong."""


class ProfileError(ConfigError):
    """A device profile is wrong, or no profile has that name."""


class StructureError(SekronEdgeError):
    """A structure does not fit the tensor, or is not well formed."""


class RankError(StructureError):
    """A rank is out of range."""


class UnsupportedLayerError(SekronEdgeError, ValueError):
    """A layer, or the values of its weights, cannot be factorized."""


class InfeasibleBudgetError(SekronEdgeError, ValueError):
    """No plan keeps the budget.

    Attributes:
        binding: Names of the budget's entries that cannot be met together.
        nearest: Points that can be met, each a mapping from a budget entry to its value.
        bundle: Folder of the nearest bundle, which does not keep the budget; None where nothing was finished.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        binding: Sequence[str] = (),
        nearest: Sequence[Mapping[str, float]] = (),
        bundle: Path | None = None,
    ) -> None:
        super().__init__(message)
        self.binding = tuple(binding)
        self.nearest = tuple(dict(point) for point in nearest)
        self.bundle = bundle


class MissingDependencyError(SekronEdgeError, ImportError):
    """An optional package is absent.

    Args:
        package: Its name.
        extra: The extra of sekron-edge that installs it.
        install: The command that installs it, where no extra does.
    """

    def __init__(self, package: str, extra: str | None = None, *, install: str | None = None) -> None:
        command = install or f"pip install 'sekron-edge[{extra}]'"
        super().__init__(f"{package} is not installed; install it with: {command}")
        self.package = package
        self.extra = extra


class DataError(SekronEdgeError, ValueError):
    """Data is absent, unreadable or not of the promised form."""


class ExportError(SekronEdgeError, RuntimeError):
    """A model could not be converted to a format."""


class NotRunnableError(ExportError):
    """An artifact is whole, but runs only on machines of another kind than this one."""


class VerificationError(SekronEdgeError, RuntimeError):
    """An artifact does not compute what its PyTorch source computes."""

    exit_code = 4


class DeviceError(SekronEdgeError, RuntimeError):
    """A measurement on a device could not be made."""

    exit_code = 5


class UnreachableError(DeviceError):
    """A device cannot be reached, was lost, or is busy: trying again may help."""


class UnsupportedError(DeviceError):
    """A device cannot run artifacts of this format."""


class BundleError(SekronEdgeError, ValueError):
    """A bundle is incomplete, altered, or of a version that this release does not read."""

    exit_code = 4
