"""MLPerf Tiny's networks on microcontrollers: memory as the interpreter needs it, latency estimated and published.

``--networks`` is a folder with the reference .tflite files; by default that of ``SEKRON_EDGE_DATA``. Arena and flash
are found with TensorFlow Lite Micro's interpreter on this machine. Latencies are cycles a MAC of a core and its
kernels, held against published medians (github.com/mlcommons, tiny_results v0.5 to v1.2). The spread of the estimate
is that of these very networks: that it holds them is a check of the arithmetic, and no proof for others. What an
estimate is worth is in the columns "by the other networks": each network from the rest alone. Vela's cycles, memory
and operators for the CPU stand beside, estimated. ``--quick`` leaves the largest network out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks._result import Claim, parser, publish
from sekron_edge.devices import CYCLES_PER_MAC, CyclesPerMac
from sekron_edge.errors import ConfigError
from sekron_edge.exporters.ethos_u._exporter import compiled
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.exporters.tflite._macs import macs as macs_of
from sekron_edge.exporters.tflm._memory import tested_arena


@dataclass(frozen=True)
class _Published:
    """Latency of the four networks on one board."""

    board: str
    core: str
    kernels: str
    clock_mhz: float
    by: str
    milliseconds: tuple[float, float, float, float]


_NETWORKS = {
    "AD": "ad_fc_int8.tflite",
    "KWS": "kws_dscnn_int8.tflite",
    "VWW": "vww_96_int8.tflite",
    "IC": "ic_resnet8_int8.tflite",
}
_ACCELERATORS = ("u55-128", "u65-256", "u85-256")
_L4, _H7, _ST = "NUCLEO-L4R5ZI", "NUCLEO-H7A3ZI-Q", "STMicroelectronics, v1.2"
_PUBLISHED = (
    _Published(_L4, "Cortex-M4", "CMSIS-NN", 120, "reference, v0.5", (10.05, 181.92, 600.60, 704.23)),
    _Published(_L4, "Cortex-M4", "CMSIS-NN", 120, "OctoML, v1.0", (8.60, 99.81, 301.20, 389.56)),
    _Published(_L4, "Cortex-M4", "X-CUBE-AI", 120, _ST, (5.26, 43.19, 88.93, 165.13)),
    _Published(_H7, "Cortex-M7", "X-CUBE-AI", 280, "Krai, v1.1", (1.83, 16.73, 50.41, 53.84)),
    _Published(_H7, "Cortex-M7", "X-CUBE-AI", 280, _ST, (1.23, 11.32, 23.80, 40.84)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Load, run, estimate, compare."""
    options = parser(__doc__.splitlines()[0])
    folder = os.environ.get("SEKRON_EDGE_DATA")
    options.add_argument("--networks", type=Path, default=None if folder is None else Path(folder) / "mlperf_tiny")
    given = options.parse_args(arguments)
    if given.networks is None or not given.networks.is_dir():
        raise ConfigError("MLPerf Tiny's networks are needed: give --networks, or set SEKRON_EDGE_DATA")
    # These networks decide nothing while they run, so that their operations can be counted.
    counted = {name: macs_of(read_file(given.networks / file)) for name, file in _NETWORKS.items()}
    all_macs = {name: macs for name, macs in counted.items() if macs is not None}
    names = [name for name in _NETWORKS if not (given.quick and name == "VWW")]
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for name in names:
        path = given.networks / _NETWORKS[name]
        macs, arena = all_macs[name], tested_arena(path)
        row: dict[str, Any] = {
            "network": name, "MACs": macs, "flash bytes": path.stat().st_size, "arena bytes": arena.size_bytes,
            "activations": arena.activation_bytes, "peak": arena.peak,
        }  # fmt: skip
        for variant in _ACCELERATORS:
            with TemporaryDirectory() as folder:
                row[f"Ethos-{variant.upper()}, Vela"] = str(compiled(path, Path(folder) / "npu.tflite", variant))
        for published in _PUBLISHED:
            typical, low, high = _figure(published).milliseconds(macs, published.clock_mhz)
            found = published.milliseconds[list(_NETWORKS).index(name)]
            column = f"{published.board}, {published.kernels} ({published.by})"
            row[column] = f"estimated {typical:.3g} ({low:.3g} to {high:.3g}), published {found:.4g} ms"
            row[f"{column}, by the other networks"] = _left_out(name, published, all_macs)
            # 1 at the nearest end of the spread, less within it.
            outside = max(low / found, found / high)
            claims.append(Claim(name=f"{name} on {column}: of the spread", value=outside, relation="<=", limit=1.0))
        rows.append(row)
    publish(rows, claims, given.json)


def _left_out(name: str, published: _Published, macs: dict[str, int]) -> str:
    """Estimate a network from what the same core and kernels took for the others: what an estimate is worth."""
    cycles = [
        found * row.clock_mhz * 1e3 / macs[other]
        for row in _PUBLISHED
        if (row.core, row.kernels) == (published.core, published.kernels)
        for other, found in zip(_NETWORKS, row.milliseconds, strict=True)
        if other != name
    ]
    low, typical, high = (
        value * macs[name] / published.clock_mhz / 1e3 for value in (min(cycles), median(cycles), max(cycles))
    )
    found = published.milliseconds[list(_NETWORKS).index(name)]
    held = "within" if low <= found <= high else "outside"
    return f"estimated {typical:.3g} ({low:.3g} to {high:.3g}), off by {typical / found:.2f}x, {held} their spread"


def _figure(published: _Published) -> CyclesPerMac:
    return next(f for f in CYCLES_PER_MAC if (f.core, f.kernels) == (published.core, published.kernels))


if __name__ == "__main__":
    main()
