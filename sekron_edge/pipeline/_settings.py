"""The settings of a job in Python: those of the wrong type are refused before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sekron_edge.arguments import require, require_count, require_names
from sekron_edge.budget import Budget
from sekron_edge.devices import DeviceProfile, load_profile
from sekron_edge.errors import ConfigError
from sekron_edge.planner import LayerSelection
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.reconstruction import ReconstructionConfig
from sekron_edge.training import TrainConfig

_OPTIONAL: dict[str, tuple[type | tuple[type, ...], str]] = {
    "runtime": (str, "the name of a format, as 'litert'"),
    "measured_on": (str, "how the device is reached, as 'ssh:board'"),
    "finetuning": (TrainConfig, "a sekron_edge.FinetuneConfig"),
    "quantization": (QuantizationConfig, "a sekron_edge.quantization.QuantizationConfig"),
    "reconstruction": (ReconstructionConfig, "a sekron_edge.reconstruction.ReconstructionConfig"),
    "sign": ((str, os.PathLike), "the file of an OpenSSH key"),
    "work": ((str, os.PathLike), "a folder"),
}
_NAMES = {"formats": "litert", "precisions": "fp32"}
_COUNTS = {"threads": 1, "runs": 1}


def require_settings(given: Mapping[str, Any]) -> None:
    """Refuse settings of the wrong type.

    Args:
        given: From the arguments' names to their values. None is one only where it is the default.

    Raises:
        ConfigError: Names the argument, what came, and what to give.
    """
    require(given["budget"], Budget, "budget", 'a sekron_edge.Budget, as Budget(macs="0.5x")')
    require(given["selection"], LayerSelection, "selection", "a sekron_edge.planner.LayerSelection")
    require_count(given["seed"], "seed", least=0)
    for name, (kinds, wanted) in _OPTIONAL.items():
        if given.get(name) is not None:
            require(given[name], kinds, name, wanted)
    for name, example in _NAMES.items():
        if given.get(name) is not None:
            require_names(given[name], name, example)
    for name, least in _COUNTS.items():
        if given.get(name) is not None:
            require_count(given[name], name, least)
    if "name" in given:
        require(given["name"], str, "name", "the stem of the artifacts' files")
        if not given["name"] or Path(given["name"]).name != given["name"]:
            raise ConfigError(f"name must be the stem of the artifacts' files, without a folder; got {given['name']!r}")
    if "out" in given:
        require(given["out"], (str, os.PathLike), "out", "the folder of the bundle")


def profile_of(given: object) -> DeviceProfile:
    """Return a profile, or the one that an id or a file names.

    Raises:
        ProfileError: If there is none, or it is wrong.
        ConfigError: If it is something else.
    """
    return given if isinstance(given, DeviceProfile) else load_profile(given)  # type: ignore[arg-type]
