"""Runs programs for ExecuTorch's Core ML delegate where there is no Core ML: the delegate's package, evaluated."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sekron_edge.artifacts import Array, Artifact, reading
from sekron_edge.errors import NotRunnableError

from ..coreml.evaluator import Program

_BACKEND = "CoreMLBackend"
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, AssertionError)
# What the delegate packs: a folder with these two.
_PACKAGE, _METADATA = "model.mlpackage", "metadata.json"


class CoreMLDelegateSession:
    """The package of a program that is one call of the Core ML delegate, in Core ML's reference evaluator.

    Raises:
        ExportError: If the program, or its package, is damaged.
        NotRunnableError: If parts of the program are no package, or the evaluator lacks an operation.
    """

    runtime = "mil-reference"
    measurable = False

    def __init__(self, artifact: Artifact) -> None:
        self.runtime_version = version("coremltools")
        self._types = [spec.dtype for spec in artifact.outputs]
        with tempfile.TemporaryDirectory() as temporary, reading(artifact.path, "ExecuTorch", _DAMAGE):
            packed = _unpacked(artifact, Path(temporary))
            self._program = Program(packed.package)  # reads the weights now: the folder goes
            declared = self._program.interface
            self._inputs = [packed.inputs.index(tensor.name) for tensor in declared.inputs]
            self._outputs = [[tensor.name for tensor in declared.outputs].index(name) for name in packed.outputs]

    def run(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run once."""
        found = self._program.run([inputs[place] for place in self._inputs])
        return tuple(found[place].astype(dtype) for place, dtype in zip(self._outputs, self._types, strict=True))


@dataclass(frozen=True)
class _Packed:
    """A delegate's package, and what its tensors are called, in the order of the program's inputs and outputs."""

    package: Path
    inputs: list[str]
    outputs: list[str]


def _unpacked(artifact: Artifact, empty: Path) -> _Packed:
    """Write what the delegate packed into a folder."""
    from executorch.backends.apple.coreml import executorchcoreml
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall

    program = deserialize_pte_binary(artifact.path.read_bytes()).program
    (plan,) = program.execution_plan
    calls = [instruction.instr_args for chain in plan.chains for instruction in chain.instructions]
    call = calls[0] if len(calls) == 1 and isinstance(calls[0], DelegateCall) else None
    if call is None or plan.delegates[0].id != _BACKEND or not set(plan.outputs) <= set(call.args):
        raise NotRunnableError(
            f"{artifact.path.name} is not runnable here: only a program that is one Core ML package as a whole can be "
            f"evaluated without Core ML, and this one has {len(calls)} parts"
        )
    content = bytes(program.backend_delegate_data[plan.delegates[0].processed.index].data)
    if not executorchcoreml.unflatten_directory_contents(content, str(empty)):
        raise ValueError("its Core ML delegate holds no folder")
    (folder,) = empty.iterdir()
    names = json.loads((folder / _METADATA).read_text(encoding="utf-8"))
    # The call's arguments are the package's inputs and outputs, each with its place among the program's values.
    called = dict(zip(call.args, [*names["inputNames"], *names["outputNames"]], strict=True))
    unused = ""
    return _Packed(
        folder / _PACKAGE,
        [called.get(place, unused) for place in plan.inputs],
        [called[place] for place in plan.outputs],
    )
