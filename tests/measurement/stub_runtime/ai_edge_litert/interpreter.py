"""In the place of LiteRT on the boards of tests: starts at once, and breaks as the environment says."""

import os
import signal
import subprocess
import time
from pathlib import Path

__version__ = "0"
_FAULT = os.environ["SEKRON_EDGE_FAULT"]

if _FAULT == "runtime":
    raise ImportError("wrong ELF class: ELFCLASS32")


class Interpreter:
    def __init__(self, model_path, num_threads):
        Path(model_path).read_bytes()
        if _FAULT == "version":
            raise ValueError("Didn't find op for builtin opcode 'CONV_2D' version '99'")
        self._runs = 0

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 0}]

    def get_output_details(self):
        return [{"index": 1}]

    def set_tensor(self, index, value):
        self._value = value

    def get_tensor(self, index):
        return self._value * (3 if _FAULT == "wrong" else 2)

    def invoke(self):
        self._runs += 1
        time.sleep(0.0005)
        if self._runs == 20:
            _FAULTS.get(_FAULT, lambda: None)()


def _crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit():
    os._exit(3)


def _hang():
    time.sleep(1000)


def _hang_silently():
    os.closerange(0, 64)
    time.sleep(1000)


def _memory():
    raise MemoryError


def _garbage():
    for descriptor in range(3, 32):
        try:
            os.write(descriptor, b"\xff\x00 garbage {\n")
        except OSError:
            continue


def _flood():
    line = b"x" * (1 << 20)
    while True:
        os.write(2, line)


def _child():
    subprocess.Popen(["sleep", "1000"])
    _crash()


def _lasting_child():
    subprocess.Popen(["sleep", "1000"])


def _clock():
    before = time.perf_counter_ns
    time.perf_counter_ns = lambda: before() * 1000


def _backwards():
    before = time.perf_counter_ns
    time.perf_counter_ns = lambda: -before()


_FAULTS = {
    "crash": _crash,
    "exit": _exit,
    "hang": _hang,
    "silent": _hang_silently,
    "memory": _memory,
    "garbage": _garbage,
    "flood": _flood,
    "child": _child,
    "lasting": _lasting_child,
    "clock": _clock,
    "backwards": _backwards,
}
