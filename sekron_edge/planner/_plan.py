"""The plan that keeps a budget: what each layer becomes, and why."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from sekron_edge.budget import Budget, LayerCost, find_resource
from sekron_edge.structure import Structure

PLAN_SCHEMA_VERSION: Literal[1] = 1
# Where fewer decisions than this are the original's, little of the model is left.
_BROKEN = 0.5


class LayerChoice(BaseModel):
    """What one layer becomes.

    Attributes:
        name: The layer's qualified name in the model.
        kind: Class name of the original layer (``Conv2d``).
        weight_shape: Of the original weight.
        structure: The chosen structure, ``None`` for "leave it dense".
        family: What the structure is called: `structure_name`, or the name of another's family; ``dense`` without one.
        reason: What the structure saves, or why the layer stays dense.
        dense: Cost of the original layer.
        cost: Cost of the chosen layer.
        relative_error: ``||W - What|| / ||W||``, under the calibration data where it was given.
        predicted_loss: The layer's share of the predicted divergence of the model's outputs.
        candidates: Number of candidates that were considered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    weight_shape: tuple[int, ...]
    structure: Structure | None
    family: str
    reason: str
    dense: LayerCost
    cost: LayerCost
    relative_error: float
    predicted_loss: float
    candidates: int


class SolverResult(BaseModel):
    """How the choice was made: HiGHS's status, the objective, and the proven bound on it.

    ``binding`` holds the limits without which there would be a better choice.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Literal["optimal", "feasible"]
    objective: float
    bound: float
    binding: tuple[str, ...]


class FrontierPoint(BaseModel):
    """The cost of the best choice for some budget, and its predicted loss: the objective of the solver."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost: LayerCost
    predicted_loss: float


class Verdict(BaseModel):
    """A decomposed model, as it ships but before any training, against the original on calibration data.

    Attributes:
        divergence: Of its outputs from the original's.
        agreement: Share of the original's decisions that it makes; None where outputs decide nothing, or nobody asked.
        snr_db: Signal-to-noise ratio that rounding leaves; None in floats.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    divergence: float
    agreement: float | None = None
    snr_db: float | None = None

    @property
    def is_broken(self) -> bool:
        """Whether more decisions differ than are the same."""
        return self.agreement is not None and self.agreement < _BROKEN

    @property
    def said(self) -> str:
        """The figures in words."""
        if self.agreement is None:
            return f"outputs diverge by {self.divergence:.4g}"
        said = f"{self.agreement:.1%} of decisions are the original's"
        return said if self.snr_db is None else f"{said} in int8, whose noise is {self.snr_db:.1f} dB below the signal"


class Plan(BaseModel):
    """The structure of each layer, the reason for it, and its predicted cost.

    ``dense`` and ``cost`` are figures of whole models. ``latency_source`` says whether the latency model was measured
    on the device or is only estimated, and ``error_source`` what the layers' errors are errors of. ``divergence`` is
    that of the decomposed model's outputs from the original's, measured on calibration data, and ``verdict`` all that
    was measured then; None if it was not. ``frontier`` holds the predicted plans for other budgets of latency only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = PLAN_SCHEMA_VERSION
    profile: str
    runtime: str
    precision: str
    budget: Budget
    limits: dict[str, float]
    seed: int
    layers: tuple[LayerChoice, ...]
    dense: LayerCost
    cost: LayerCost
    solver: SolverResult
    latency_source: str
    error_source: str
    divergence: float | None = None
    verdict: Verdict | None = None
    frontier: tuple[FrontierPoint, ...] = ()

    def structures(self) -> dict[str, Structure]:
        """Return the layers that change, by name."""
        return {layer.name: layer.structure for layer in self.layers if layer.structure is not None}

    def __str__(self) -> str:
        lines = [f"{'layer':<28}{'becomes':<14}{'error':>8}{'MACs':>14}{'ms':>10}  why"]
        lines += [
            f"{layer.name:<28}{layer.family:<14}{layer.relative_error:>8.3f}{layer.cost.macs:>14,}"
            f"{layer.cost.latency_ms:>10.4f}  {layer.reason}"
            for layer in self.layers
        ]
        lines.append(
            f"{self.cost.parameters:,} parameters (dense {self.dense.parameters:,}), {self.cost.macs:,} MACs "
            f"(dense {self.dense.macs:,}), predicted {self.cost.latency_ms:.4g} ms (dense "
            f"{self.dense.latency_ms:.4g}; {self.latency_source}); solver: {self.solver.status}"
        )
        lines += [f"{entry} <= {limit:.6g} {self._said(entry)}" for entry, limit in self.limits.items()]
        if self.verdict is not None and self.verdict.agreement is not None:
            broken = "; this breaks the model" if self.verdict.is_broken else ""
            lines.append(f"before any training, {self.verdict.said}{broken}")
        return "\n".join(lines)

    def _said(self, entry: str) -> str:
        """Return whether a limit decided anything, and how much the plan takes of it."""
        taken = find_resource(entry).amount(self.cost)
        return f"{'binds' if entry in self.solver.binding else 'does not bind'}: {taken:.6g} predicted"

    def to_json(self) -> str:
        """Return the plan as JSON: stable order, diff-able."""
        return self.model_dump_json(indent=2) + "\n"
