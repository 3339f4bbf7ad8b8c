"""Some phases of one network of the zoo, each with its time and memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks._zoo_images import images
from benchmarks._zoo_networks import NETWORKS, network, settled
from benchmarks._zoo_phases import PHASES, Subject
from benchmarks._zoo_row import Phase, Row, commit, sources
from sekron_edge import files
from sekron_edge.errors import SekronEdgeError

_CALIBRATION = 16
_HELDOUT = 8
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/:'\"]+)+/(?=[^\s/:'\"]+)")
_MOST_SAID = 700
_STATUS = Path("/proc/self/status")


def run_phases(name: str, file: Path, wanted: Sequence[str]) -> None:
    """Take a network through phases of `PHASES`; add each to the row in a file, which need not exist, as it ends."""
    torch.set_num_threads(1)
    row = Row.model_validate_json(file.read_bytes()) if file.is_file() else Row(network=name)
    whole = images(NETWORKS[name], _CALIBRATION + _HELDOUT)
    calibration, heldout = whole[:_CALIBRATION], whole[_CALIBRATION:]
    model = settled(network(name), calibration).requires_grad_(False)
    subject = Subject(model, calibration, heldout)
    for phase in wanted:
        row = row.with_phase(phase, _passed(partial(PHASES[phase], subject)))
        files.write_text(file, row.model_dump_json(indent=1) + "\n")


def _passed(run: Callable[[], dict[str, float]]) -> Phase:
    """Run a phase; return its figures, or why there are none."""
    _forget_peak()
    start = time.perf_counter()
    figures: dict[str, float] = {}
    try:
        figures, outcome = run(), "ok"
    except SekronEdgeError as error:
        outcome = f"refused: {_anywhere(error)}"
    except Exception as error:  # noqa: BLE001  # the zoo counts what is raised raw
        outcome = f"raw {type(error).__name__}: {_anywhere(error)}"
    seconds = time.perf_counter() - start
    return Phase(
        outcome=outcome, seconds=seconds, peak_gib=_peak_gib(), figures=figures, sources=sources(), commit=commit()
    )


def _anywhere(error: Exception) -> str:
    """Return what an error says, without the folders of this machine."""
    return _FOLDERS.sub("", str(error))[:_MOST_SAID]


def _forget_peak() -> None:
    """Make Linux count the process's peak from now on."""
    if _STATUS.exists():
        _STATUS.with_name("clear_refs").write_text("5")


def _peak_gib() -> float | None:
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), None)
