"""A small network, and all that a bundle of it is packed from; and what those do who alter a bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sekron_edge as se
from sekron_edge import files
from sekron_edge.artifacts import TensorSpec
from sekron_edge.bundle import Counts, Delivery, Manifest, Score

INPUT = TensorSpec(name="input", shape=(1, 1, 8, 8), dtype="float32", place="input_0")
OUTPUT = TensorSpec(name="output", shape=(1, 3), dtype="float32", place="output_0")
_MANIFEST, _SEAL = "manifest.json", "manifest.json.sha256"


def network() -> nn.Module:
    """A small one: seconds count."""
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 3)).eval()


def manifest_of(plan: se.Plan, deliveries: Sequence[Delivery], **changes: Any) -> Manifest:
    """What is packed, but for what packing fills in; the first delivery is of the target's runtime."""
    given = {
        "name": "test",
        "created_at": datetime.now(UTC),
        "profile": "host",
        "runtime": deliveries[0].artifact.format,
        "task": "classification",
        "labels": ("a", "b", "c"),
        "normalization": None,
        "inputs": (INPUT,),
        "outputs": (OUTPUT,),
        "budget": plan.budget,
        "results": (),
        "score": Score(metric="accuracy", unit="%", dense=0.9, delivered=0.89, samples=10),
        "dense": Counts(parameters=plan.dense.parameters, macs=plan.dense.macs),
        "delivered": Counts(parameters=plan.cost.parameters, macs=plan.cost.macs),
        "deliveries": tuple(deliveries),
        "versions": {"torch": torch.__version__},
        "seed": 0,
        "files": {},
    }
    return Manifest.model_validate(given | changes)


def sealed(bundle: Path, manifest: str | None = None) -> None:
    """Make the seal true of the manifest, or of another one in its place."""
    if manifest is not None:
        (bundle / _MANIFEST).write_text(manifest)
    (bundle / _SEAL).write_text(f"{files.sha256(bundle / _MANIFEST)}  {_MANIFEST}\n")


def hashed_again(bundle: Path, name: str) -> None:
    """Make the manifest true of an altered file, and the seal true of the manifest, as whoever altered it would."""
    if name == _MANIFEST:
        sealed(bundle)
        return
    manifest = json.loads((bundle / _MANIFEST).read_text())
    manifest["files"][name] = {"sha256": files.sha256(bundle / name), "size_bytes": (bundle / name).stat().st_size}
    sealed(bundle, json.dumps(manifest, indent=2) + "\n")
