"""Sizes of artifacts: predicted from weights and operations, against the files.

Networks of the examples in which layers, drawn at random, have structures drawn at random. Prints what an operation
takes beside its weights, fitted to the files: the exporters' ``file_costs`` are from here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.optimize import nnls
from torch import nn

from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Precision, SizedExporter, export, get_exporter
from sekron_edge.nn import factorize, operations
from sekron_edge.pipeline import load_model
from sekron_edge.planner import enumerate_structures
from sekron_edge.primitives import VALUE_BYTES, WEIGHTS_ALONE, FileCosts
from sekron_edge.structure import Shape, Structure

_MODELS = Path(__file__).parents[1] / "examples" / "models"
_NETWORKS = {"resnet_cifar.py:resnet20": (3, 32, 32), "fashion_resnet.py:fashion_resnet": (1, 28, 28)}
_UNITS = [FileCosts(product=1), FileCosts(channel=1), FileCosts(move=1), FileCosts(other=1)]
_LARGEST_ERROR = 0.05
# Of the layers that get a structure.
_SHARE = 0.6


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, predict, compare."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--formats", nargs="+", default=["litert"])
    given = options.parse_args(arguments)
    rows, claims = [], []
    for name in given.formats:
        exporter = get_exporter(name)
        for precision in exporter.precisions:
            known = exporter.file_costs.get(precision, WEIGHTS_ALONE) if isinstance(exporter, SizedExporter) else None
            found = _compared(name, precision, known or WEIGHTS_ALONE, draws=2 if given.quick else 5)
            rows += found
            worst = max(abs(row["predicted"] / row["bytes"] - 1) for row in found)
            claim = f"{name} {precision}: largest error of the predicted size"
            claims.append(Claim(name=claim, value=worst, relation="<=", limit=_LARGEST_ERROR))
    publish(rows, claims, given.json)


def _compared(format: str, precision: Precision, known: FileCosts, *, draws: int) -> list[dict[str, Any]]:
    random = Random(0)
    rows, system, beyond = [], [], []
    for name, shape in _NETWORKS.items():
        for draw in range(draws):
            model = _drawn(load_model(f"{_MODELS}/{name}", None), random, share=_SHARE if draw else 0.0)
            x = torch.randn(1, *shape)
            primitives = [p for operation in operations(model, (x,)).operations for p in operation.primitives]
            with tempfile.TemporaryDirectory() as folder:
                calibration = (torch.randn(4, *shape),)
                artifact = export(model, (x,), format=format, precision=precision, out=folder, calibration=calibration)
            weights = sum(parameter.numel() for parameter in model.parameters()) * VALUE_BYTES[precision]
            rows.append(
                {
                    "format": format, "precision": precision, "network": name, "operations": len(primitives),
                    "weights": weights, "bytes": artifact.size_bytes, "predicted": weights + known.bytes(primitives),
                }
            )  # fmt: skip
            system.append([unit.bytes(primitives) / artifact.size_bytes for unit in _UNITS])
            beyond.append((artifact.size_bytes - weights) / artifact.size_bytes)
    product, channel, move, other = nnls(np.array(system), np.array(beyond))[0].round(1).tolist()
    fitted = FileCosts(product=product, channel=channel, move=move, other=other)
    Console(stderr=True).print(f"{format} {precision}, fitted: {fitted}", markup=False, highlight=False)
    return rows


def _drawn(model: nn.Module, random: Random, share: float) -> nn.Module:
    def structure_for(name: str, layer: nn.Module, shape: Shape) -> Structure | None:
        del name, layer
        offered = [structure for _, structure in enumerate_structures(shape)]
        return random.choice(offered) if offered and random.random() < share else None

    changed = factorize(model, structure_for)
    # Biases and statistics are zeros and ones before training; equal constants would stand once in the file.
    for layer in changed.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return changed.eval()


if __name__ == "__main__":
    main()
