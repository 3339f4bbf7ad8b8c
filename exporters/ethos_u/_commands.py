"""What a file that Vela compiled holds: the commands of an accelerator, as operators of one kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sekron_edge.artifacts import NPUSizes
from sekron_edge.errors import ExportError

from ..tflite._graph import Graph, Operator, Tensor, TFLiteFile
from ..tflm._sources import ETHOS_U

# Such an operator reads its commands, its weights, the memory that it works in and the fast part of that, then inputs.
_STREAM, _WEIGHTS, _SCRATCH, _FAST = range(4)
# A stream begins with this, a word that says that a configuration follows, and the configuration: the product in its
# highest four bits, the base-2 logarithm of the multiply-accumulates a cycle in its lowest.
_MAGIC = b"COP1"
_HEADER_WORDS = 3
_PRODUCTS = ("u55", "u65", "u85")
_PLAN = "OfflineMemoryAllocation"
_PLAN_HEADER_WORDS = 3


def is_compiled(file: TFLiteFile) -> bool:
    """Say whether a file holds commands of an Ethos-U."""
    return any(operator.custom and operator.kind == ETHOS_U for operator in file.main.operators)


def left_to_the_cpu(graph: Graph) -> tuple[str, ...]:
    """Name the operators of a compiled file that are no commands."""
    return tuple(graph.text(place) for place, one in enumerate(graph.operators) if one.kind != ETHOS_U)


def variant(file: TFLiteFile, path: Path) -> str:
    """Return what a file was compiled for, as ``u55-128``.

    Raises:
        ExportError: If its commands do not say.
    """
    for operator in file.main.operators:
        stream = file.main.read(operator, _STREAM) if operator.kind == ETHOS_U else None
        if stream is None or stream.data is None:
            continue
        head = stream.data[: 4 * _HEADER_WORDS].tobytes()
        if len(head) == 4 * _HEADER_WORDS and head.startswith(_MAGIC):
            word = int.from_bytes(head[-4:], "little")
            product, macs = word >> 28, 1 << (word & 15)
            if product < len(_PRODUCTS):
                return f"{_PRODUCTS[product]}-{macs}"
    raise ExportError(f"{path} was compiled for an Arm Ethos-U, and does not say for which: compile it again with Vela")


def sizes(file: TFLiteFile, path: Path) -> NPUSizes:
    """Read what a compiled file needs.

    Raises:
        ExportError: If it does not say what it was compiled for.
    """
    graph = file.main
    compiled = [operator for operator in graph.operators if operator.kind == ETHOS_U]
    scratch, fast = (_largest(graph, compiled, place) for place in (_SCRATCH, _FAST))
    # With SRAM as a cache of a larger memory the fast part is another; otherwise both are the same memory.
    cached = 0 < fast != scratch
    return NPUSizes(
        accelerator=f"Ethos-{variant(file, path).upper()}",
        sram_bytes=fast if cached else scratch,
        arena_bytes=max(scratch, _placed(file, {_number(graph, one, _FAST) for one in compiled} if cached else set())),
        weights_bytes=_total(graph, compiled, _WEIGHTS),
        commands_bytes=_total(graph, compiled, _STREAM),
        on_cpu=left_to_the_cpu(graph),
    )


def _largest(graph: Graph, operators: list[Operator], place: int) -> int:
    tensors: list[Tensor | None] = [graph.read(operator, place) for operator in operators]
    return max((tensor.size_bytes for tensor in tensors if tensor is not None), default=0)


def _total(graph: Graph, operators: list[Operator], place: int) -> int:
    """Sum the bytes of what operators read at a place; several may read the same."""
    tensors = {_number(graph, operator, place) for operator in operators} - {-1}
    return sum(graph.tensors[number].size_bytes for number in tensors)


def _number(graph: Graph, operator: Operator, place: int) -> int:
    tensor = graph.read(operator, place)
    return -1 if tensor is None else tensor.number


def _placed(file: TFLiteFile, elsewhere: set[int]) -> int:
    """Return where the last of the tensors ends that Vela gave a place in the arena."""
    plan = file.metadata.get(_PLAN, b"")
    words = np.frombuffer(plan[: len(plan) // 4 * 4], "<i4")[_PLAN_HEADER_WORDS:]
    ends = [
        int(offset) + tensor.size_bytes
        for tensor, offset in zip(file.main.tensors, words, strict=False)
        if offset >= 0 and tensor.data is None and tensor.number not in elsewhere
    ]
    return max(ends, default=0)
