"""How much memory a model needs in TensorFlow Lite Micro: ``python _arena.py MODEL [SIZE]``.

Every attempt is a process of its own: a kernel that lacks memory, or that a damaged file misleads, may end it. They are
forked from this one, which never runs a model. It prints an `ArenaSearch` as JSON, with a SIZE an `Attempt`. It imports
nothing of sekron-edge, so that it starts at once.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

import flatbuffers
import numpy as np

_STEP = 16
_FIRST = 1 << 16
_LARGEST = 1 << 30
# A microcontroller would take minutes where this machine takes as many seconds.
LONGEST_ATTEMPT_S = 100
_MOST_SAID = 1 << 20


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How a model did in an arena.

    Attributes:
        ran: Whether it ran to its end.
        signal: That ended its process, if one did.
        said: By the interpreter.
    """

    ran: bool
    signal: int | None
    said: str


@dataclasses.dataclass(frozen=True)
class ArenaSearch:
    """What a search found.

    Attributes:
        least: The smallest arena that the model ran in; 0 if it ran in none.
        attempt: The one in that arena, or in the largest that was tried; with what the runtime recorded of it.
        crashed_at: Place of the operator without which, and all behind it, that attempt would not have crashed.
    """

    least: int
    attempt: Attempt
    crashed_at: int | None = None


def attempt(content: bytes, size: int, *, recorded: bool = False) -> Attempt:
    """Run a model once on zeros in an arena of so many bytes, in a process of its own.

    Args:
        content: Of the file.
        size: In bytes.
        recorded: Whether the runtime tells what it allocated.
    """
    with tempfile.TemporaryFile() as spoken:
        child = os.fork()
        if not child:
            _run_and_exit(content, size, spoken, recorded=recorded)
        _, status = os.waitpid(child, 0)
        spoken.seek(0)
        said = spoken.read(_MOST_SAID).decode(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    return Attempt(ran=code == 0, signal=-code if code < 0 else None, said=said)


def _run_and_exit(content: bytes, size: int, spoken: IO[bytes], *, recorded: bool) -> NoReturn:
    import resource  # which Windows lacks, as it lacks the runtime

    code = 1
    try:
        os.dup2(spoken.fileno(), 1)
        os.dup2(spoken.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(LONGEST_ATTEMPT_S)
        _run(content, size, recorded=recorded)
        code = 0
    except Exception as error:  # noqa: BLE001 - whatever it makes of a file, this attempt failed
        os.write(2, traceback.format_exception_only(error)[-1].encode())
    finally:
        os._exit(code)


def _run(content: bytes, size: int, *, recorded: bool) -> None:
    from tflite_micro.python.tflite_micro import runtime

    graph = _schema().Model.GetRootAs(content, 0).Subgraphs(0)
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
    for index in range(graph.InputsLength()):
        detail = interpreter.get_input_details(index)
        interpreter.set_input(np.zeros(detail["shape"], detail["dtype"]), index)
    interpreter.invoke()
    for index in range(graph.OutputsLength()):
        interpreter.get_output(index)
    if recorded:
        interpreter.print_allocations()


def _schema() -> Any:
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated

    return schema_py_generated


def search(content: bytes) -> ArenaSearch:
    """Find the smallest arena that a model runs in, to a multiple of 16 bytes."""
    high = _FIRST
    while not (found := attempt(content, high)).ran:
        if found.signal == signal.SIGALRM or high == _LARGEST:
            return ArenaSearch(least=0, attempt=found, crashed_at=_crashing_operator(content, high, found))
        high *= 2
    low = 0
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        if attempt(content, middle).ran:
            high = middle
        else:
            low = middle
    return ArenaSearch(least=high, attempt=attempt(content, 2 * high + _FIRST, recorded=True))


def _crashing_operator(content: bytes, size: int, whole: Attempt) -> int | None:
    """Find the last operator of the shortest part of a model that crashes as the whole does; None where none does."""
    if whole.signal in (None, signal.SIGALRM):
        return None
    schema = _schema()
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    operators = graph.operators or []

    def crashes(count: int) -> bool:
        graph.operators = operators[:count]
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return attempt(bytes(builder.Output()), size).signal is not None

    count = bisect.bisect_left(range(len(operators) + 1), True, key=crashes)
    return count - 1 if 0 < count <= len(operators) else None


def main() -> None:
    """Print what an attempt or a search finds."""
    import tflite_micro.python.tflite_micro.runtime  # noqa: F401 - before any fork, so that every attempt has it

    path, *size = sys.argv[1:]
    content = Path(path).read_bytes()
    found = attempt(content, int(size[0])) if size else search(content)
    sys.stdout.write(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    main()
