"""A reference evaluator of Core ML programs: reads an ``.mlpackage`` as it lies on disk and runs it with torch.

Core ML runs on Apple's systems only. So that what was exported can be checked elsewhere, this module reads the saved
package anew (manifest, protobuf, weights: nothing is kept from the conversion) and evaluates it operation by
operation. Floats are held in float32, and rounded to float16 after each operation that is declared float16. It is
written to be right, not fast: timing it says nothing about Core ML.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sekron_edge.artifacts import Array
from sekron_edge.errors import ExportError, NotRunnableError
from sekron_edge.silence import silenced

# These two fill the table when they are imported.
from . import _layers  # noqa: F401
from ._operations import OPERATIONS, OpenError, Operation
from ._weights import Blobs, held

Value = Tensor | str
_DEFAULT_FUNCTION = "main"
_REMEDY = "run the package on macOS"
# MIL's only parameters that take several values under one name, of concat, stack and einsum.
_LISTS = ("values",)


@dataclass(frozen=True)
class TensorType:
    """A named tensor as the program declares it; ``None`` in ``shape`` is a size that may vary."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def takes(self, shape: Sequence[int]) -> bool:
        """Say whether a tensor of ``shape`` is one of these."""
        return len(shape) == len(self.shape) and all(
            declared in (None, size) for declared, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class _Step:
    """One operation: its function, what it reads by parameter (names of values), what it gives, what is free after."""

    kind: str
    function: Operation
    arguments: Mapping[str, tuple[str, ...]]
    outputs: tuple[TensorType, ...]
    released: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interface:
    """What a program takes and gives, in its own order."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]


def read_interface(package: Path) -> Interface:
    """Read what an ``.mlpackage`` declares, without looking into its operations and weights.

    Raises:
        ExportError: If the package is damaged.
    """
    model, _ = _read_model(package)
    with _damage_named(package):
        return _interface(*_main(model))


class Program:
    """The main function of an ``.mlpackage``, ready to run.

    Args:
        package: Folder of the package.

    Attributes:
        interface: What it takes and gives.

    Raises:
        ExportError: If the package is damaged.
        NotRunnableError: If it holds an operation that is not in the table; names both.
    """

    def __init__(self, package: Path) -> None:
        self._package = package
        model, folder = _read_model(package)
        with _damage_named(package):
            self._build(*_main(model), Blobs(folder))

    def run(
        self, inputs: Sequence[Array], *, observe: Callable[[str, Tensor], None] | None = None
    ) -> tuple[Array, ...]:
        """Evaluate the program.

        Args:
            inputs: One array an input, of the declared shape; converted to the declared type.
            observe: Is told every tensor that is taken or computed, with its name in the program.

        Returns:
            One array an output, of the declared type.

        Raises:
            ExportError: If a shape is not the declared one, or an operation fails; names the package.
            NotRunnableError: If it is not known what Core ML makes of an operation; names both, and why.
        """
        values: dict[str, Value] = dict(self._constants)
        for declared, array in zip(self.interface.inputs, inputs, strict=True):
            if not declared.takes(array.shape):
                raise ExportError(
                    f"{self._package.name}: input {declared.name} has shape {declared.shape}, got {array.shape}"
                )
            try:
                values[declared.name] = given = _rounded(torch.tensor(array), declared.dtype)
            except OpenError as error:
                raise ExportError(f"{self._package.name}: input {declared.name}: {error}") from error
            if observe is not None:
                observe(declared.name, given)
        with torch.no_grad():
            for step in self._steps:
                computed = self._evaluated(step, values)
                values.update(computed)
                if observe is not None:
                    for name, value in computed.items():
                        observe(name, value)
                for name in step.released:
                    del values[name]
        return tuple(_array(values[output.name], output.dtype) for output in self.interface.outputs)

    def _build(self, inputs: Sequence[Any], block: Any, blobs: Blobs) -> None:
        self._check_kinds(block.operations)
        self.interface = _interface(inputs, block)
        constants: dict[str, Value] = {}
        steps: list[_Step] = []
        known = {tensor.name for tensor in self.interface.inputs}
        for operation in block.operations:
            outputs = tuple(_tensor_type(value) for value in operation.outputs)
            if operation.type == "const":
                constants[outputs[0].name] = blobs.value(operation.attributes["val"])
                continue
            step = _Step(operation.type, OPERATIONS[operation.type], _bound(operation, blobs, constants), outputs)
            self._check_call(step, known=known | constants.keys())
            if step.kind.startswith("constexpr_"):
                constants.update(self._evaluated(step, constants))
            else:
                steps.append(step)
                known.update(tensor.name for tensor in outputs)
        self._steps, used = _with_releases(steps, constants, block.outputs)
        self._constants = {name: value for name, value in constants.items() if name in used}

    def _check_kinds(self, operations: Sequence[Any]) -> None:
        unknown = [operation for operation in operations if operation.type not in {"const", *OPERATIONS}]
        if unknown:
            kinds = sorted({operation.type for operation in unknown})
            raise NotRunnableError(
                f"{self._package}: the reference evaluator does not know MIL's {', '.join(kinds)} "
                f"(first for output {unknown[0].outputs[0].name}); {_REMEDY}"
            )

    def _check_call(self, step: _Step, known: Set[str]) -> None:
        """Refuse values that nothing defines and parameters that the function does not have, before anything runs."""
        missing = {name for names in step.arguments.values() for name in names} - known
        if missing:
            raise ValueError(f"{step.kind} ({step.outputs[0].name}) reads {sorted(missing)}, which nothing defines")
        try:
            inspect.signature(step.function).bind(**step.arguments)
        except TypeError as error:
            raise NotRunnableError(
                f"{self._package}: the reference evaluator does not support this {step.kind} "
                f"({step.outputs[0].name}): {error}; {_REMEDY}"
            ) from error

    def _evaluated(self, step: _Step, values: Mapping[str, Value]) -> dict[str, Tensor]:
        try:
            arguments = {
                parameter: [values[name] for name in names] if parameter in _LISTS else values[names[0]]
                for parameter, names in step.arguments.items()
            }
            result = step.function(**arguments)
            results = result if isinstance(result, tuple) else (result,)
            rounded = {
                declared.name: _rounded(value, declared.dtype)
                for declared, value in zip(step.outputs, results, strict=True)
            }
        except OpenError as error:
            raise NotRunnableError(
                f"{self._package}: what Core ML makes of {step.kind} ({step.outputs[0].name}) is not sure: {error}; "
                f"{_REMEDY}"
            ) from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ExportError(
                f"{self._package}: evaluating {step.kind} ({step.outputs[0].name}) failed: {error}"
            ) from error
        for declared in step.outputs:
            shape = tuple(rounded[declared.name].shape)
            if not declared.takes(shape):
                raise ExportError(
                    f"{self._package}: {step.kind} ({declared.name}) declares shape {declared.shape}, got {shape}"
                )
        return rounded


def _read_model(package: Path) -> tuple[Any, Path]:
    """Return the protobuf of the package's root model, and the folder that its weights are named from."""
    with silenced():
        from coremltools.proto import Model_pb2
        from google.protobuf.message import DecodeError

    try:
        manifest = json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
        path = package / "Data" / root["path"]
        model = Model_pb2.Model()
        model.ParseFromString(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError, DecodeError) as error:
        raise ExportError(f"{package} cannot be read as an .mlpackage, export it again: {error!r}") from error
    if model.WhichOneof("Type") != "mlProgram":
        raise ExportError(f"{package} must hold an ML program, got a model of kind {model.WhichOneof('Type')}")
    return model, path.parent


@contextmanager
def _damage_named(package: Path) -> Iterator[None]:
    """Turn what reading a damaged program raises into one error that names the package."""
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{package} holds a damaged program, export it again: {error}") from error


def _main(model: Any) -> tuple[Sequence[Any], Any]:
    """Return the inputs and the block of the main function."""
    functions = model.mlProgram.functions
    name = model.description.defaultFunctionName or _DEFAULT_FUNCTION
    # Asked for by a key that it lacks, a protobuf map makes an empty entry.
    if name not in functions or functions[name].opset not in functions[name].block_specializations:
        raise ValueError(f"it has no function {name!r}")
    return functions[name].inputs, functions[name].block_specializations[functions[name].opset]


def _interface(inputs: Sequence[Any], block: Any) -> Interface:
    values = {value.name: value for value in inputs}
    values |= {value.name: value for operation in block.operations for value in operation.outputs}
    return Interface(
        tuple(_tensor_type(value) for value in inputs), tuple(_tensor_type(values[name]) for name in block.outputs)
    )


def _tensor_type(value: Any) -> TensorType:
    from coremltools.proto import MIL_pb2

    kind = value.type.WhichOneof("type")
    if kind != "tensorType":
        raise ValueError(f"{value.name} must be a tensor, got a {kind}")
    tensor = value.type.tensorType
    sizes = (
        dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor.dimensions
    )
    return TensorType(value.name, MIL_pb2.DataType.Name(tensor.dataType).lower(), tuple(sizes))


def _bound(operation: Any, blobs: Blobs, constants: dict[str, Value]) -> dict[str, tuple[str, ...]]:
    """Return the names of the values of each parameter; values that stand in their place become constants."""
    bound: dict[str, tuple[str, ...]] = {}

    def constant(parameter: str, spec: Any) -> str:
        name = f"{operation.outputs[0].name}.{parameter}.{len(constants)}"
        constants[name] = blobs.value(spec)
        return name

    for parameter, argument in operation.inputs.items():
        bound[parameter] = tuple(
            constant(parameter, binding.value) if binding.WhichOneof("binding") == "value" else binding.name
            for binding in argument.arguments
        )
    # Up to iOS 17, compressed weights have their parts as attributes.
    for parameter, spec in operation.attributes.items():
        if parameter != "name":
            bound[parameter] = (constant(parameter, spec),)
    return bound


def _with_releases(
    steps: Sequence[_Step], constants: Collection[str], outputs: Sequence[str]
) -> tuple[tuple[_Step, ...], set[str]]:
    """Note on each step which values nothing reads after it; also return the names of all that is ever read."""
    used = set(outputs)
    noted = []
    for step in reversed(steps):
        touched = {name for names in step.arguments.values() for name in names}
        touched |= {declared.name for declared in step.outputs}
        noted.append(replace(step, released=tuple(touched - used - set(constants))))
        used |= touched
    return tuple(reversed(noted)), used


def _rounded(value: Tensor, dtype: str) -> Tensor:
    stored = getattr(torch, dtype, None)
    if not isinstance(stored, torch.dtype):
        raise ValueError(f"tensors of type {dtype} are not supported")
    if value.numel() and value.dtype != torch.bool and not stored.is_floating_point and stored != torch.bool:
        counted = value if value.is_floating_point() else value.long()  # torch compares no uint16
        low, high = (limit.item() for limit in counted.aminmax())
        limits = torch.iinfo(stored)
        if not limits.min <= low <= high <= limits.max:  # nor is NaN
            raise OpenError(f"MIL does not say what {low:g} to {high:g} become in {dtype}")
    return held(value.to(stored))


def _array(value: Value, dtype: str) -> Array:
    assert isinstance(value, Tensor)  # the interface has tensors alone
    array: Array = value.to(getattr(torch, dtype)).numpy()
    return array
