"""Some phases of one network of the zoo: traced, counted, exported and verified."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._zoo_images import images
from benchmarks._zoo_networks import NETWORKS, network, settled
from benchmarks._zoo_row import Phase, Row, commit, sources
from sekron_edge import files
from sekron_edge.artifacts import Precision, export
from sekron_edge.errors import SekronEdgeError
from sekron_edge.nn import expose_layers, operations, supported_layers
from sekron_edge.verification import TOLERANCES, verify

_CALIBRATION = 16
_HELDOUT = 8
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Subject:
    """A network, and the images that it is calibrated and verified on."""

    model: nn.Module
    calibration: Tensor
    heldout: Tensor


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
        outcome = f"refused: {error}"
    except Exception as error:  # noqa: BLE001  # the zoo counts what is raised raw
        outcome = f"raw {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Phase(
        outcome=outcome, seconds=seconds, peak_gib=_peak_gib(), figures=figures, sources=sources(), commit=commit()
    )


def _forget_peak() -> None:
    """Make Linux count the process's peak from now on."""
    if _STATUS.exists():
        _STATUS.with_name("clear_refs").write_text("5")


def _peak_gib() -> float | None:
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), None)


def _traced(subject: Subject) -> dict[str, float]:
    model, example = subject.model, subject.calibration[:1]
    exposed = expose_layers(model, example)
    graph = operations(exposed, example)
    supported, _ = supported_layers(exposed)
    macs = sum(one.macs for operation in graph.operations for one in operation.primitives)
    inside = [operation for operation in graph.operations if operation.layer in supported]
    covered = sum(one.macs for operation in inside for one in operation.primitives)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs,
        "flop_counter_macs": counter.get_total_flops() // 2,
        "covered": covered / max(macs, 1),
    }


def _exported(subject: Subject, *, format: str, precision: Precision) -> dict[str, float]:
    """Export and verify; random weights decide nothing, so outputs are held against their tolerance, not decisions."""
    model, calibration = subject.model, subject.calibration
    tolerance = TOLERANCES[precision].of_outputs()
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(
            model, calibration[:1], format=format, precision=precision, out=folder, calibration=calibration
        )
        check = verify(artifact, model, subject.heldout, tolerance=tolerance, calibration=calibration)
    return {"snr_db": check.real.snr_db, "bytes": artifact.size_bytes}


TRACE = "trace"
TARGETS: Mapping[str, tuple[str, Precision]] = {
    "LiteRT fp32": ("litert", "fp32"), "ExecuTorch fp32": ("executorch", "fp32"), "Core ML fp32": ("coreml", "fp32"),
    "LiteRT int8": ("litert", "int8"), "ExecuTorch int8": ("executorch", "int8"),
}  # fmt: skip
PHASES: Mapping[str, Callable[[Subject], dict[str, float]]] = {
    TRACE: _traced,
    **{name: partial(_exported, format=kind, precision=precision) for name, (kind, precision) in TARGETS.items()},
}
