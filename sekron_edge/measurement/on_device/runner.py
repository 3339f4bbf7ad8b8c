"""The runner: measures artifacts where they run. It travels to devices as this one file.

It needs Python 3.8 and numpy, and nothing of sekron-edge; what loads artifacts is a file that travels with it
(`sekron_edge.artifacts.DeviceRuntime`). ``python runner.py JOB`` reads a job (JSON, written by
`sekron_edge.measurement._protocol`) and prints one line of JSON: what was measured, or what went wrong.
Whatever runtimes print goes to standard error, so that the line stands alone. Inputs come, and outputs go, in the
artifact's own layout: the runner knows no other.
"""

from __future__ import annotations

import ctypes
import glob
import importlib
import json
import os
import platform
import re
import signal
import sys
import time
from functools import lru_cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from statistics import mean, median
from typing import Any, Callable, NoReturn, Sequence

import numpy as np

_BLOCK = 4  # timed runs of one artifact before the next has its turn
_SETTLED = 0.05  # what two blocks may differ by when warming up is over
_MOST_RUNS = 20  # times what was asked for
_DEVICE_RUNTIME = "sekron_edge_device_runtime"
_LONGEST_TEXT = 1 << 16
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_RESET_PEAK = "5"
MATRIX_UNIT = "matrix unit"  # beside the paths of files
_MATRIX_FLAG = " amx_tile"
# arch_prctl of x86-64, to ask Linux for the tiles' registers.
_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILES = 158, 0x1023, 18


class Failure(Exception):  # noqa: N818 - it becomes an error where the job is from
    """What went wrong, and at which stage: job, affinity, format, exporter, runtime, load or run."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load every artifact, run what is to be checked, warm each up, and time them in turn."""
    items = job["artifacts"]
    _bind(job["affinity"])
    runtimes = _staged("runtime", lambda: [_runtime_class(item)(item) for item in items])
    inputs = _staged("job", lambda: [_inputs(item) for item in items])
    before = _memory("VmRSS")
    # With several artifacts in one process nobody can say whose the memory is.
    counted = len(items) == 1 and before is not None and _reset_peak()
    sessions = _staged("load", lambda: [r.load(item, job["threads"]) for r, item in zip(runtimes, items)])
    texts = system_texts(job["read"])
    seen = _staged("run", lambda: _time(job, sessions, inputs))
    highest = _memory("VmHWM") if counted else None
    for record, session in zip(seen["timings"], sessions):
        record["runtime"], record["runtime_version"] = session.runtime, str(session.runtime_version)
        record["measurable"], record["timed"] = session.measurable, _timed(session, job["timed"])
        record["compute_units"] = getattr(session, "compute_units", None)
        record["peak_memory_bytes"] = None if highest is None or before is None else max(0, highest - before)
    for record, session, values in zip(seen["timings"], sessions, inputs):
        profile = getattr(session, "operators", None) if job["operators"] else None
        record["operators"] = [] if profile is None else _staged("run", partial(profile, [v[0] for v in values]))
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "cores": os.cpu_count(),
        "before": texts,
        "after": system_texts(job["read"]),
        **seen,
    }


def _time(job: dict[str, Any], sessions: list[Any], inputs: list[list[Any]]) -> dict[str, Any]:
    for item, session, values in zip(job["artifacts"], sessions, inputs):
        if item["answers"] is not None:
            _answer_all(session, values, item["answers"])
    first = [[value[0] for value in values] for values in inputs]
    settled: list[bool] = []
    turns: list[Callable[[], list[float]]] = []
    for session, values in zip(sessions, first):
        alone = _timed(session, job["timed"]) == "computation"
        compute = session.prepare(values) if alone else partial(session.run, values)
        settled.append(_settle(compute, job["warmup"], job["settle_seconds"]))
        turns.append(partial(_run_amid_others, session, values) if alone else partial(_run_as_used, compute, job))
    seen: list[list[float]] = [[] for _ in sessions]
    start = time.monotonic()
    end = start + job["least_seconds"]
    while len(seen[0]) < job["runs"] or (time.monotonic() < end and len(seen[0]) < _MOST_RUNS * job["runs"]):
        for turn, record in zip(turns, seen):
            record.extend(turn())
    timings = [{"milliseconds": record, "settled": calm} for record, calm in zip(seen, settled)]
    return {"timings": timings, "elapsed_s": time.monotonic() - start}


def _bind(cores: list[int]) -> None:
    """Let this process, and the threads that it will start, run on these cores only."""
    if not cores:
        return
    try:
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError, ValueError) as error:
        raise Failure("affinity", f"it cannot be bound to the cores {cores}: {error}") from error


def _runtime_class(item: dict[str, Any]) -> Any:
    """Return the class that loads an item, of ``FILE.py:Class`` or ``module:Class``."""
    if item["systems"] and sys.platform not in item["systems"]:
        known = ", ".join(item["systems"])
        raise Failure("format", "{} runs on {} alone, and this is {}".format(item["format"], known, sys.platform))
    place, _, name = item["loader"].rpartition(":")
    return getattr(_read(place) if place.endswith(".py") else importlib.import_module(place), name)


@lru_cache(maxsize=None)
def _read(path: str) -> Any:
    """Return the module in a file, whatever the file is called."""
    spec = spec_from_file_location(_DEVICE_RUNTIME, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no file of Python")
    module = sys.modules[_DEVICE_RUNTIME] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _staged(stage: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Failure:
        raise
    except Exception as error:
        # What loads artifacts may know the stage better.
        raise Failure(getattr(error, "stage", stage), f"{type(error).__name__}: {error}") from error


def _inputs(item: dict[str, Any]) -> list[Any]:
    """Return, for each input of an artifact, an array of one or several pieces that it takes."""
    if item["values"] is None:
        random = np.random.default_rng(0)
        return [_noise(spec, random)[None] for spec in item["inputs"]]
    with np.load(item["values"]) as found:
        return [found[str(index)] for index in range(len(item["inputs"]))]


def _noise(spec: dict[str, Any], random: Any) -> Any:
    values = random.standard_normal(spec["shape"])
    if spec["quantization"] is None:
        return values.astype(spec["dtype"])
    limits = np.iinfo(spec["dtype"])
    whole = np.rint(values / spec["quantization"]["scale"]) + spec["quantization"]["zero_point"]
    return np.clip(whole, limits.min, limits.max).astype(spec["dtype"])


def _answer_all(session: Any, values: list[Any], path: str) -> None:
    """Run every piece, and write what comes out to a file."""
    pieces = [session.run([value[index] for value in values]) for index in range(len(values[0]))]
    stacked: dict[str, Any] = {str(index): np.stack(outputs) for index, outputs in enumerate(zip(*pieces))}
    np.savez(path, **stacked)


def _timed(session: Any, asked: str) -> str:
    """Say what a run is: the computation alone only where the runtime knows it apart from the call."""
    return asked if hasattr(session, "prepare") else "call"


def _run_amid_others(session: Any, inputs: list[Any]) -> list[float]:
    """Time a computation after others, with its values just written, and once more at once; return the mean.

    Inside a network some of what it needs is in the caches: the first of the two takes longer, the second less long.
    """
    return [mean(_run(session.prepare(inputs), 2))]


def _run_as_used(compute: Callable[[], object], job: dict[str, Any]) -> list[float]:
    """Time calls as a user has them, one after another, whatever had its turn before."""
    if len(job["artifacts"]) > 1:
        compute()  # brings its weights back into the caches
    return _run(compute, _BLOCK)


def _run(compute: Callable[[], object], times: int) -> list[float]:
    seen = []
    for _ in range(times):
        start = time.perf_counter_ns()
        compute()
        seen.append((time.perf_counter_ns() - start) / 1e6)
    return seen


def _settle(compute: Callable[[], object], warmup: int, longest_s: float) -> bool:
    """Warm up until two blocks take the same time; say whether they did, where there was time for it."""
    _run(compute, warmup)
    if longest_s == 0:
        return True
    end = time.monotonic() + longest_s
    before = median(_run(compute, _BLOCK))
    while True:
        now = median(_run(compute, _BLOCK))
        if abs(now - before) <= _SETTLED * before:
            return True
        if time.monotonic() > end:
            return False
        before = now


def _memory(key: str) -> Any:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
            found = re.search(rf"^{key}:\s+(\d+) kB", stream.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:  # noqa: PTH123
            stream.write(_RESET_PEAK)
    except OSError:
        return False
    return True


def system_texts(patterns: Sequence[str]) -> dict[str, str]:
    """Return what small files of the system say, and whether it lends this process AMX.

    What cannot be read is left out.
    """
    found = {}
    for path in (path for pattern in patterns for path in sorted(glob.glob(pattern))):  # noqa: PTH207
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
                found[path] = stream.read(_LONGEST_TEXT).strip("\0 \n")
        except OSError:
            continue
    if any(_MATRIX_FLAG in text for text in found.values()):
        lent = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILES) == 0
        found[MATRIX_UNIT] = "lent" if lent else "refused"
    return found


def _die_with_parent() -> None:
    """Ask Linux to end this process with the one that started it, whatever happens to that."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
        except (OSError, AttributeError):
            return


def main(path: str) -> NoReturn:
    """Measure the job at ``path`` and print the answer."""
    _die_with_parent()
    answers = os.dup(1)
    os.dup2(2, 1)
    with open(path, encoding="utf-8") as stream:  # noqa: PTH123
        job = json.load(stream)
    try:
        answer = measure(job)
    except Failure as error:
        answer = {"failure": {"stage": error.stage, "message": str(error)}}
    line = (json.dumps({"token": job["token"], **answer}) + "\n").encode()
    while line:
        line = line[os.write(answers, line) :]
    # Runtimes that hang or crash while they are torn down have nothing to say any more.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
