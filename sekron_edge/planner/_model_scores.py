"""The scores of all layers: what any plan for any budget is solved from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from pydantic import BaseModel, ConfigDict

from sekron_edge.budget import Budget, LayerCost, planned_resource, total
from sekron_edge.errors import ConfigError, InfeasibleBudgetError
from sekron_edge.planner._candidates import Candidate, LayerScores
from sekron_edge.planner._plan import LayerChoice, Plan
from sekron_edge.planner._solver import solve

# What an error names of the layers that must stay as they are.
_SHOWN_REFUSALS = 3
_LEAST_SHARE = 0.01


class ModelScores(BaseModel):
    """All layers' candidates: solved for any budget without scoring again. JSON round trip.

    ``rest`` is the cost of everything that is not a choice: other parameters, sums, pooling, activations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: str
    latency_source: str
    error_source: str
    layers: tuple[LayerScores, ...]
    rest: LayerCost

    @property
    def dense(self) -> LayerCost:
        """The cost of the dense model."""
        return total([self.rest, *(layer.candidates[0].cost for layer in self.layers)])

    def least(self, entry: str) -> float:
        """Return the least amount of a resource that any choice takes; the resource must add up over layers.

        Raises:
            ConfigError: If it is a maximum, or plans are not solved for it.
        """
        resource = planned_resource(entry)
        if resource.adds_up != "sum":
            raise ConfigError(f"{entry} does not add up over layers: it has no least that a plan is solved for")
        return float(
            resource.amount(self.rest)
            + sum(min(resource.amount(c.cost) for c in layer.candidates) for layer in self.layers)
        )

    @property
    def families(self) -> set[str]:
        """The families of structures that any layer may choose from."""
        return {c.family for layer in self.layers for c in layer.candidates if c.structure is not None}

    def only(self, families: Collection[str]) -> ModelScores:
        """Return the scores with dense layers and some families of structures as the only choices."""
        layers = [
            layer.model_copy(
                update={"candidates": tuple(c for c in layer.candidates if c.structure is None or c.family in families)}
            )
            for layer in self.layers
        ]
        return self.model_copy(update={"layers": tuple(layers)})

    def corrected(
        self,
        *,
        source: str,
        extra_ms: float = 0.0,
        extra_bytes: float = 0.0,
        scale: float = 1.0,
        factor: Callable[[Candidate], float] | None = None,
    ) -> ModelScores:
        """Return the scores, corrected by the measurement of an exported model.

        Args:
            source: What was measured; joins ``latency_source``.
            extra_ms: Time beyond that of the layers (activations, pooling, the call itself).
            extra_bytes: Bytes of the artifact beyond those of the parameters.
            scale: Of every layer's latency.
            factor: Of each candidate's latency, beside ``scale``.
        """

        def candidate(given: Candidate) -> Candidate:
            by = scale if factor is None else scale * factor(given)
            cost = given.cost.model_copy(update={"latency_ms": given.cost.latency_ms * by})
            return given.model_copy(update={"cost": cost})

        layers = tuple(
            layer.model_copy(update={"candidates": tuple(map(candidate, layer.candidates))}) for layer in self.layers
        )
        rest = self.rest.model_copy(
            update={
                "latency_ms": self.rest.latency_ms + extra_ms,
                "artifact_bytes": self.rest.artifact_bytes + extra_bytes,
            }
        )
        return self.model_copy(
            update={"layers": layers, "rest": rest, "latency_source": f"{self.latency_source}; {source}"}
        )

    def plan(self, budget: Budget, *, profile: str, runtime: str, seed: int = 0) -> Plan:
        """Solve for a budget.

        Raises:
            InfeasibleBudgetError: If no choice keeps it; carries the nearest point.
            ConfigError: If nobody handles one of its entries.
        """
        dense = self.dense
        limits = budget.planned(dense)
        try:
            chosen, result = solve(self.layers, self.rest, limits)
        except InfeasibleBudgetError as error:
            said = f"{error} {self._refusals(error.binding)}".strip()
            raise InfeasibleBudgetError(said, binding=error.binding, nearest=error.nearest) from error
        return Plan(
            profile=profile,
            runtime=runtime,
            precision=self.precision,
            budget=budget,
            limits=limits,
            seed=seed,
            layers=tuple(_choice(layer, pick) for layer, pick in zip(self.layers, chosen, strict=True)),
            dense=dense,
            cost=total([self.rest, *(pick.cost for pick in chosen)]),
            solver=result,
            latency_source=self.latency_source,
            error_source=self.error_source,
        )

    def _refusals(self, entries: Sequence[str]) -> str:
        """Return which layers must stay as they are, and why: those with most of the first resource that binds."""
        resource = next((planned_resource(entry) for entry in entries), None)
        if resource is None:
            return ""
        whole = max(float(resource.amount(self.dense)), 1e-9)

        def share(layer: LayerScores) -> float:
            return float(resource.amount(layer.candidates[0].cost)) / whole

        refused = [layer for layer in self.layers if layer.refused and share(layer) >= _LEAST_SHARE]
        if not refused:
            return ""
        largest = sorted(refused, key=share, reverse=True)[:_SHOWN_REFUSALS]
        named = "; ".join(f"{layer.name!r} ({share(layer):.0%}): {layer.refused}" for layer in largest)
        more = f"; and {len(refused) - len(largest)} more" if len(refused) > len(largest) else ""
        return f"Layers that stay as they are, with their share of {resource.name}: {named}{more}."


def _choice(layer: LayerScores, pick: Candidate) -> LayerChoice:
    dense = layer.candidates[0].cost
    if pick.structure is None:
        reason = layer.refused or "dense is the best choice within the budget"
    else:
        macs = dense.macs / max(pick.cost.macs, 1)
        reason = f"{macs:.1f}x fewer MACs, predicted {pick.cost.latency_ms:.4g} ms for {dense.latency_ms:.4g} ms"
    return LayerChoice(
        name=layer.name,
        kind=layer.kind,
        weight_shape=layer.weight_shape,
        structure=pick.structure,
        family=pick.family,
        reason=reason,
        dense=dense,
        cost=pick.cost,
        relative_error=pick.relative_error,
        predicted_loss=pick.predicted_loss,
        candidates=layer.considered,
    )
