"""LiteRT on devices. This one file travels there: Python 3.8, numpy and LiteRT."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any, Callable, Sequence

_PACKAGES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"))


class LiteRT:
    """``.tflite`` in whichever of LiteRT's packages is installed."""

    def __init__(self, item: dict[str, Any]) -> None:  # noqa: ARG002 - every runtime is made of an item
        self._module, package = _first_importable()
        self._name, self._version = ("litert" if "litert" in package else package), _version(package, self._module)

    def load(self, item: dict[str, Any], threads: int) -> LiteRTSession:
        """Load a model; XNNPACK is applied by itself."""
        interpreter = self._module.Interpreter(model_path=item["path"], num_threads=threads)
        interpreter.allocate_tensors()
        return LiteRTSession(interpreter, self._name, self._version)


class LiteRTSession:
    """A model in LiteRT's interpreter."""

    measurable = True

    def __init__(self, interpreter: Any, runtime: str, runtime_version: str) -> None:
        self.runtime, self.runtime_version = runtime, runtime_version
        self._interpreter = interpreter
        self._inputs = [detail["index"] for detail in interpreter.get_input_details()]
        self._outputs = [detail["index"] for detail in interpreter.get_output_details()]

    def prepare(self, inputs: Sequence[Any]) -> Callable[[], object]:
        """Hand over the inputs, touch what the outputs go to; return what computes."""
        self._hand_over(inputs)
        self._fetch()
        compute: Callable[[], object] = self._interpreter.invoke
        return compute

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Run once, in the artifact's own layout."""
        self._hand_over(inputs)
        self._interpreter.invoke()
        return self._fetch()

    def _hand_over(self, inputs: Sequence[Any]) -> None:
        for index, value in zip(self._inputs, inputs):
            self._interpreter.set_tensor(index, value)

    def _fetch(self) -> tuple[Any, ...]:
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)


def _first_importable() -> tuple[Any, str]:
    reasons = []
    for module, package in _PACKAGES:
        try:
            return importlib.import_module(module), package
        except (ImportError, OSError) as error:
            reasons.append(f"{module} cannot be imported: {error}")
    raise ImportError("; ".join(reasons))


def _version(package: str, module: Any) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", "unknown"))
