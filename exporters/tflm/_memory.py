"""The memory that a model needs in TensorFlow Lite Micro, or why it does not run there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from sekron_edge import contained
from sekron_edge.artifacts import Arena
from sekron_edge.errors import ExportError

from ..tflite._graph import TFLiteFile, read_file
from . import _arena
from ._arena import LONGEST_ATTEMPT_S, ArenaSearch, Attempt
from ._peak import peak_operator
from ._sources import CUSTOM_OPERATORS, ETHOS_U

_KERNELS = "TFLM's reference kernels on 64 bits"
_MARGIN = 0.05
_LONGEST_S = 600.0
_SAID = 400
# Where TensorFlow Lite Micro's own compression writes how the bytes of constants are to be read.
_COMPRESSED = "COMPRESSION_METADATA"
_SEARCH, _ATTEMPT = TypeAdapter(ArenaSearch), TypeAdapter(Attempt)


def tested_arena(path: Path) -> Arena:
    """Find the least arena that a model runs in.

    Raises:
        ExportError: If it runs in none: an operator is missing, or the interpreter fails or crashes.
        MissingDependencyError: If ai-edge-litert, which has the schema of the file, is absent.
    """
    file = read_file(path)
    _require_runnable(file, path)
    found = _SEARCH.validate_json(_answer(path))
    if not found.least:
        where = "" if found.crashed_at is None else f" in {file.main.text(found.crashed_at)}"
        raise ExportError(f"tflm: {path.name} {_why(found.attempt, file, where)}")
    head = re.findall(r"Arena allocation head (\d+)", found.attempt.said)
    return Arena(
        least_bytes=found.least,
        margin=_MARGIN,
        activation_bytes=int(head[-1]) if head else 0,
        peak=peak_operator(file.main),
        kernels=_KERNELS,
    )


def require_runs(path: Path, size: int) -> TFLiteFile:
    """Try a model on zeros in an arena of so many bytes, in a process of its own.

    Returns:
        The file, as its schema has it.

    Raises:
        ExportError: If it does not run to its end; says why.
    """
    file = read_file(path)
    _require_runnable(file, path)
    tried = _ATTEMPT.validate_json(_answer(path, str(size)))
    if not tried.ran:
        raise ExportError(f"{path} cannot be read by TensorFlow Lite Micro: it {_why(tried, file)}")
    return file


def _require_runnable(file: TFLiteFile, path: Path) -> None:
    """Refuse what no arena helps."""
    if any(operator.custom and operator.kind == ETHOS_U for operator in file.main.operators):
        raise ExportError(
            f"tflm: {path.name} was compiled by Vela for an Arm Ethos-U, which this machine lacks; take it as ethos-u "
            "to have its sizes read, or take the file that it was compiled from"
        )
    # The interpreter would take what follows without complaint, and run with rubbish in the place of constants.
    if file.data_is_beside:
        raise ExportError(
            f"tflm: {path.name} has constants beyond the model itself, where TensorFlow Lite Micro does not look; "
            "convert it again with its buffers inside"
        )
    short = None if _COMPRESSED in file.metadata else next(filter(None, (one.cut_short() for one in file.graphs)), None)
    if short is not None:
        raise ExportError(
            f"tflm: {path.name} is damaged: the constant {short} has less than the {short.size_bytes:,} bytes that its "
            "shape says; convert it again"
        )
    unwritten = next(filter(None, (graph.unwritten() for graph in file.graphs)), None)
    if unwritten is not None:
        raise ExportError(
            f"tflm: {path.name} reads {unwritten}, which is no constant and which nothing has written by then; "
            "convert it again with its weights"
        )


def _answer(path: Path, *arguments: str) -> str:
    """Run the program that tries a model in arenas, and return what it prints."""
    program = [sys.executable, "-W", "ignore", _arena.__file__, str(path), *arguments]
    command = [*contained.launcher(path.stat().st_size), *program]
    # A session of its own, so that what it forked ends with it.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        try:
            answer, complaint = process.communicate(timeout=_LONGEST_S)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise ExportError(f"tflm: finding the arena of {path.name} took longer than {_LONGEST_S:g} s") from error
    if process.returncode:
        raise ExportError(f"tflm: the search for the arena of {path.name} ended by itself:\n{complaint[-_SAID:]}")
    return answer


def _why(attempt: Attempt, file: TFLiteFile, where: str = "") -> str:
    """Say why a model did not run, and what to do."""
    missing = set(re.findall(r"registration from op code (\w+)", attempt.said))
    if "CUSTOM" in missing:
        custom = {one.kind for one in file.operators() if one.custom}
        missing = missing - {"CUSTOM"} | (custom - CUSTOM_OPERATORS.keys() or custom)
    if missing:
        return (
            f"needs operators that TensorFlow Lite Micro lacks: {', '.join(sorted(missing))}; use layers without them"
        )
    said = attempt.said.strip()[-_SAID:]
    if attempt.signal == signal.SIGALRM:
        return f"did not come to its end in {LONGEST_ATTEMPT_S} s on zeros: does a loop in it ever end?"
    if attempt.signal is not None:
        return (
            f"ends TensorFlow Lite Micro with {signal.Signals(attempt.signal).name}{where}, whatever the arena: the "
            f"file is damaged, or its operator's kernel does not expect such tensors. Convert it again. {said}"
        ).rstrip()
    return f"does not run in TensorFlow Lite Micro, whatever the arena:\n{said}"
