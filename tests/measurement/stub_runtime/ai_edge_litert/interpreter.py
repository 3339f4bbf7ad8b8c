"""In the place of LiteRT on the boards of tests: starts at once, and breaks as the environment says."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__version__ = "0"
_FAULT = os.environ["SEKRON_EDGE_FAULT"]

if _FAULT == "runtime":
    raise ImportError("wrong ELF class: ELFCLASS32")


class Interpreter:
    def __init__(self, model_path: str, num_threads: int) -> None:
        Path(model_path).read_bytes()
        if _FAULT == "version":
            raise ValueError("Didn't find op for builtin opcode 'CONV_2D' version '99'")
        self._runs = 0

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self) -> list[dict[str, int]]:
        return [{"index": 0}]

    def get_output_details(self) -> list[dict[str, int]]:
        return [{"index": 1}]

    def set_tensor(self, index: int, value: Any) -> None:
        self._value = value

    def get_tensor(self, index: int) -> Any:
        return self._value * (3 if _FAULT == "wrong" else 2)

    def invoke(self) -> None:
        self._runs += 1
        time.sleep(0.0005)
        if self._runs == 20 and _FAULT in _FAULTS:
            _FAULTS[_FAULT]()


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit() -> None:
    os._exit(3)


def _hang() -> None:
    time.sleep(1000)


def _hang_silently() -> None:
    os.closerange(0, 64)
    time.sleep(1000)


def _memory() -> None:
    raise MemoryError


def _grow() -> None:
    bytearray(6 << 30)


def _garbage() -> None:
    for descriptor in range(3, 32):
        try:
            os.write(descriptor, b"\xff\x00 garbage {\n")
        except OSError:
            continue


def _flood() -> None:
    line = b"x" * (1 << 20)
    while True:
        os.write(2, line)


def _child() -> None:
    subprocess.Popen(["sleep", "1000"])
    _crash()


def _lasting_child() -> None:
    subprocess.Popen(["sleep", "1000"])


def _clock() -> None:
    before = time.perf_counter_ns
    time.perf_counter_ns = lambda: before() * 1000


def _backwards() -> None:
    before = time.perf_counter_ns
    time.perf_counter_ns = lambda: -before()


_FAULTS: dict[str, Callable[[], None]] = {
    "crash": _crash,
    "exit": _exit,
    "hang": _hang,
    "silent": _hang_silently,
    "memory": _memory,
    "grows": _grow,
    "garbage": _garbage,
    "flood": _flood,
    "child": _child,
    "lasting": _lasting_child,
    "clock": _clock,
    "backwards": _backwards,
}
