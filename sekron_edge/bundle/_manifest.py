"""The manifest of a bundle: ``manifest.json``, a versioned schema."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from sekron_edge.artifacts import Artifact, NPUEstimate, TensorSpec
from sekron_edge.budget import Budget
from sekron_edge.measurement import Measurement, PairTimes
from sekron_edge.quantization import QuantizationReport
from sekron_edge.reconstruction import ReconstructionReport
from sekron_edge.verification import Check

MANIFEST_SCHEMA_VERSION: Literal[1] = 1
MANIFEST_NAME = "manifest.json"
SEAL_NAME = "manifest.json.sha256"
SIGNATURE_NAME = "manifest.json.sig"
PLAN_NAME = "plan.json"
SBOM_NAME = "sbom.cdx.json"
WEIGHTS_NAME = "weights.safetensors"
GOLDEN_INPUTS = "golden/inputs.safetensors"
GOLDEN_OUTPUTS = "golden/outputs.safetensors"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Model):
    """One file of the bundle."""

    sha256: str
    size_bytes: int


class PixelNormalization(_Model):
    """How pixels in [0, 1] become the model's input: ``(pixel - mean) / std``, channel by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Score(_Model):
    """The task's metric on held-out data, of the dense and of the delivered PyTorch model."""

    metric: str
    unit: str
    dense: float
    delivered: float
    samples: int
    higher_is_better: bool = True

    def shown(self, value: float) -> str:
        """Return a value of the metric in the form that people read."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4g} {self.unit}".rstrip()

    @property
    def change(self) -> str:
        """The gain or loss of the delivered model, in words."""
        gained = self.delivered - self.dense
        return f"{100 * gained:+.2f} points" if self.unit == "%" else f"{gained:+.3g} {self.unit}".rstrip()


class Counts(_Model):
    """Parameters and multiply-accumulates of one inference."""

    parameters: int
    macs: int


class BudgetResult(_Model):
    """One promise: the limit, the value that was found, how it was found, and whether the promise is kept."""

    entry: str
    limit: float
    found: float
    how: str
    kept: bool


class Delivery(_Model):
    """One artifact of the bundle, with the proof of it.

    Attributes:
        artifact: Its ``path`` is relative to the bundle.
        check: The verification against the PyTorch model; for a compiled artifact, of the file that it was compiled
            from. None where this machine has no runtime for it.
        not_run: Why it was not verified.
        measured: Latency and memory, where its runtime can be measured here.
        dense_bytes: Size of the dense model in the same format and precision.
        dense_arena_bytes: Bytes of its arena, where the format has one.
        dense_npu: The estimate of an accelerator's compiler for it.
        dense_measured: Measurement of that dense model, timed in turn with this one.
        pair: Medians of both in every process that timed them; ``measured`` and ``dense_measured`` are of the one in
            the middle. None in bundles of earlier releases.
        score: The task's metric of the artifact itself on held-out data; None where only a slow evaluator runs it.
        dense_score: Of the dense model's artifact.
        scored_samples: Number of held-out samples; None for all.
        snippet: Path of the code that loads it.
        sources: Paths of source code that firmware is compiled with.
    """

    artifact: Artifact
    check: Check | None
    not_run: str = ""
    measured: Measurement | None
    dense_bytes: int
    dense_arena_bytes: int | None = None
    dense_npu: NPUEstimate | None = None
    dense_measured: Measurement | None
    pair: PairTimes | None = None
    score: float | None = None
    dense_score: float | None = None
    scored_samples: int | None = None
    snippet: str
    sources: tuple[str, ...] = ()


class Manifest(_Model):
    """Everything a bundle holds and promises.

    ``inputs`` and ``outputs`` are in PyTorch's layout; each artifact states its own. ``kept`` says whether every budget
    is. ``files`` lists every file but the manifest and its seal.
    """

    schema_version: Literal[1] = MANIFEST_SCHEMA_VERSION
    name: str
    created_at: datetime
    profile: str
    runtime: str
    task: str
    labels: tuple[str, ...]
    normalization: PixelNormalization | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    budget: Budget
    results: tuple[BudgetResult, ...]
    kept: bool = True
    score: Score
    reconstruction: ReconstructionReport | None = None
    quantization: QuantizationReport | None = None
    dense: Counts
    delivered: Counts
    deliveries: tuple[Delivery, ...]
    versions: dict[str, str]
    seed: int
    files: dict[str, FileEntry]

    @property
    def missed(self) -> tuple[BudgetResult, ...]:
        """The budgets that are not kept."""
        return tuple(result for result in self.results if not result.kept)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if self.kept is bool(self.missed):
            raise ValueError("kept must be whether every result is kept")
        return self
