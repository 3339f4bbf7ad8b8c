"""How much memory a model needs in TensorFlow Lite Micro: ``python -m sekron_edge.exporters.tflm._arena MODEL``.

A process of its own: a kernel that lacks memory may end it. Prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sekron_edge.silence import silenced

_STEP = 16
_FIRST = 1 << 16
_LARGEST = 1 << 30
_SAID = 400


def runs(content: bytes, size: int) -> bool:
    """Say whether the model allocates and runs in an arena of so many bytes."""
    from tflite_micro.python.tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
        for index, detail in enumerate(_inputs(interpreter, content)):
            interpreter.set_input(np.zeros(detail["shape"], detail["dtype"]), index)
        interpreter.invoke()
    except RuntimeError:
        return False
    return True


def _inputs(interpreter: Any, content: bytes) -> list[dict[str, Any]]:
    from ai_edge_litert import schema_py_generated as schema

    count = schema.Model.GetRootAs(content, 0).Subgraphs(0).InputsLength()
    return [interpreter.get_input_details(index) for index in range(count)]


def least_arena(content: bytes) -> int:
    """Return the smallest arena that the model runs in, to a multiple of 16; 0 if it runs in none."""
    high = _FIRST
    while not runs(content, high):
        high *= 2
        if high > _LARGEST:
            return 0
    low = 0
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        if runs(content, middle):
            high = middle
        else:
            low = middle
    return high


def main() -> None:
    """Find the least arena, and what activations take of it."""
    from tflite_micro.python.tflite_micro import runtime

    content = Path(sys.argv[1]).read_bytes()
    with silenced() as spoken:
        least = least_arena(content)
        if least:
            with contextlib.suppress(RuntimeError):
                runtime.Interpreter.from_bytes(content, arena_size=2 * least + _FIRST).print_allocations()
        spoken.seek(0)
        text = spoken.read().decode(errors="replace")
    head = re.findall(r"Arena allocation head (\d+)", text)
    missing = sorted(set(re.findall(r"registration from op code (\w+)", text)))
    found = {"least": least, "activations": int(head[-1]) if head else 0, "missing": missing, "said": text[-_SAID:]}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
