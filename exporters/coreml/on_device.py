"""Core ML on a Mac. This one file travels there: Python 3.8, numpy and coremltools."""

from __future__ import annotations

import importlib
import platform
from typing import Any, Sequence


class CoreML:
    """``.mlpackage`` in Core ML; ``compute_units`` of the item says which processors may run it."""

    def __init__(self, item: dict[str, Any]) -> None:  # noqa: ARG002 - every runtime is made of an item
        self._module: Any = importlib.import_module("coremltools")

    def load(self, item: dict[str, Any], threads: int) -> CoreMLSession:  # noqa: ARG002 - Core ML chooses its threads
        """Load a package for the compute units."""
        units = getattr(self._module.ComputeUnit, item["compute_units"])
        model = self._module.models.MLModel(item["path"], compute_units=units)
        model.get_compiled_model_path()  # a package that Core ML refuses loads all the same; this raises then
        return CoreMLSession(model, item, self._module.__version__)


class CoreMLSession:
    """A package in Core ML."""

    runtime = "coreml"
    measurable = True

    def __init__(self, model: Any, item: dict[str, Any], version: str) -> None:
        self.runtime_version = f"{version}, macOS {platform.mac_ver()[0]}"
        self.compute_units = item["compute_units"]
        self._model, self._inputs, self._outputs = model, item["inputs"], item["outputs"]

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Run once."""
        outputs = self._model.predict({spec["name"]: value for spec, value in zip(self._inputs, inputs)})
        return tuple(outputs[spec["name"]].astype(spec["dtype"]) for spec in self._outputs)
