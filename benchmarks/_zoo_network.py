"""One network of the zoo, in a process of its own: traced, counted, exported and verified."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._zoo_networks import NETWORKS, network, settled
from sekron_edge.artifacts import Precision, export
from sekron_edge.data import photographs
from sekron_edge.errors import SekronEdgeError
from sekron_edge.nn import expose_layers, operations, supported_layers
from sekron_edge.verification import verify

TARGETS: tuple[tuple[str, Precision], ...] = (
    ("litert", "fp32"), ("executorch", "fp32"), ("coreml", "fp32"), ("litert", "int8"), ("executorch", "int8"),
)  # fmt: skip
_SAMPLES = 16


def main() -> None:
    """Take the network named by the first argument through all phases; write its row to the second."""
    name, path = sys.argv[1:]
    side = NETWORKS[name]
    images = _images(side)
    model = settled(network(name), images).requires_grad_(False)
    row: dict[str, Any] = {"network": name, "side": side, "parameters": sum(p.numel() for p in model.parameters())}
    row |= _phase("trace", lambda: _counted(model, images[:1]))
    for kind, precision in TARGETS:
        row |= _phase(f"{kind} {precision}", lambda k=kind, p=precision: _exported(model, images, k, p))  # type: ignore[misc]
    Path(path).write_text(json.dumps(row))


def _images(side: int) -> Tensor:
    whole = photographs().train
    crops = [F.interpolate(whole[i % len(whole)][None].float() / 255, (side, side), mode="area") for i in range(2)]
    mixed = [torch.roll(crops[i % 2], (i * 5, i * 3), (2, 3)) for i in range(_SAMPLES)]
    return (torch.cat(mixed) - 0.5) / 0.25


def _phase(name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a phase; return its figures, or why there are none, with its time and the process's peak so far."""
    start = time.perf_counter()
    try:
        found = {**run(), f"{name}: outcome": "ok"}
    except SekronEdgeError as error:
        found = {f"{name}: outcome": f"refused: {error}"}
    except Exception as error:  # noqa: BLE001  # the zoo counts what is raised raw
        found = {f"{name}: outcome": f"raw {type(error).__name__}: {error}"}
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, f"{name}: s": time.perf_counter() - start, f"{name}: peak GiB": gib}


def _counted(model: nn.Module, example: Tensor) -> dict[str, Any]:
    exposed = expose_layers(model, example)
    graph = operations(exposed, example)
    supported, _ = supported_layers(exposed)
    macs = sum(one.macs for operation in graph.operations for one in operation.primitives)
    inside = [operation for operation in graph.operations if operation.layer in supported]
    covered = sum(one.macs for operation in inside for one in operation.primitives)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(example)
    return {"macs": macs, "flop_counter_macs": counter.get_total_flops() // 2, "covered": covered / max(macs, 1)}


def _exported(model: nn.Module, images: Tensor, format: str, precision: Precision) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        artifact = export(model, images[:1], format=format, precision=precision, out=folder, calibration=images)
        check = verify(artifact, model, images[:4])
    return {f"{format} {precision}: dB": check.real.snr_db}


if __name__ == "__main__":
    main()
