"""Faults of what boards say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from sekron_edge.artifacts import Artifact, TensorSpec
from sekron_edge.measurement import Conditions, MeasurementRequest
from sekron_edge.measurement._protocol import read_answer, read_outputs
from tests.campaign.faults import bytes_altered, json_altered
from tests.campaign.subjects import Subject

_SPEC = TensorSpec(name="x", shape=(1, 2), dtype="float32")


def _request(folder: Path) -> MeasurementRequest:
    path = folder / "model.tflite"
    path.write_bytes(b"model" * 100)
    artifact = Artifact.describe(path, format="litert", precision="fp32", inputs=[_SPEC], outputs=[_SPEC], versions={})
    return MeasurementRequest((artifact,), Conditions(), token="0123456789abcdef")


def answers(folder: Path) -> Subject:
    """A board's answer, altered on its way or made up."""
    request = _request(folder)
    path = folder / "answer"
    timing = {"runtime": "r", "runtime_version": "1", "timed": "call", "measurable": True, "settled": True,
              "milliseconds": [0.001] * 50, "peak_memory_bytes": None}  # fmt: skip
    answer = {"token": request.token, "machine": "armv8", "system": "Linux", "python": "3.8", "cores": 4,
              "affinity": None, "elapsed_s": 1.0, "before": {}, "after": {}, "timings": [timing]}  # fmt: skip
    path.write_text(json.dumps(answer))

    def use() -> Any:
        return read_answer(request, path.read_bytes(), seconds=1.0, device="board")

    def sound(found: Any) -> bool:
        times = found.timings[0].milliseconds
        return bool(min(times) > 0 and sum(times) < 1200 and found.token == request.token)

    return Subject(folder, use, (path,), json_altered, sound=sound)


def outputs(folder: Path) -> Subject:
    """A board's outputs, altered on their way or made up."""
    (artifact,) = _request(folder).artifacts
    path = folder / "outputs.npz"
    named: dict[str, Any] = {"0": np.ones((3, 1, 2), np.float32)}
    np.savez(path, **named)

    def sound(found: tuple[Any, ...]) -> bool:
        return [each.shape[1:] for each in found] == [(2,)]

    def use() -> Any:
        return read_outputs(artifact, path, "board")

    return Subject(folder, use, (path,), bytes_altered, sound=sound)
