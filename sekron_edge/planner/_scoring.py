"""Scoring a model: what each candidate of each layer costs, and what error it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from sekron_edge.errors import UnsupportedLayerError
from sekron_edge.nn import ConvGeometry, layer_weight, replace_layers, schedule, supported_layers
from sekron_edge.planner._candidates import Candidate, LayerScores, enumerate_structures, undominated
from sekron_edge.planner._plan import Budget, LayerChoice, LayerCost, Plan
from sekron_edge.planner._solver import ADDITIVE, solve, total
from sekron_edge.primitives import Primitive
from sekron_edge.structure import Factor, Shape, Structure
from sekron_edge.tensor import spectrum

_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class CostModel(Protocol):
    """What the planner asks of a device: the time of operations, and where that figure is from."""

    @property
    def source(self) -> str:
        """Say whether it was measured, and on what, or is estimated."""
        ...

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        ...


class ModelScores(BaseModel):
    """All layers' candidates: solved for any budget without scoring again. JSON round trip."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: str
    latency_source: str
    layers: tuple[LayerScores, ...]
    rest: LayerCost

    @property
    def dense(self) -> LayerCost:
        """The cost of the dense model."""
        return total([self.rest, *(layer.candidates[0].cost for layer in self.layers)])

    def corrected(self, *, latency: float, extra_bytes: float, source: str) -> ModelScores:
        """Return the scores with every latency times ``latency`` and ``extra_bytes`` more in the artifact.

        For what an exported model was measured to take beyond, or below, what was predicted.

        Args:
            latency: Measured over predicted.
            extra_bytes: Measured less predicted.
            source: What was measured; joins ``latency_source``.
        """

        def scaled(cost: LayerCost) -> LayerCost:
            return cost.model_copy(update={"latency_ms": cost.latency_ms * latency})

        layers = tuple(
            layer.model_copy(
                update={
                    "candidates": tuple(c.model_copy(update={"cost": scaled(c.cost)}) for c in layer.candidates),
                }
            )
            for layer in self.layers
        )
        rest = scaled(self.rest)
        rest = rest.model_copy(update={"artifact_bytes": rest.artifact_bytes + extra_bytes})
        return self.model_copy(
            update={"layers": layers, "rest": rest, "latency_source": f"{self.latency_source}; {source}"}
        )

    def plan(self, budget: Budget, *, profile: str, runtime: str, seed: int = 0) -> Plan:
        """Solve for a budget.

        Raises:
            InfeasibleBudgetError: If no choice keeps it; carries the nearest point.
        """
        dense = self.dense
        figures = {entry: float(getattr(dense, entry)) for entry in ADDITIVE}
        figures["peak_memory_bytes"] = float(dense.peak_bytes)
        limits = {
            entry: limit.absolute(figure)
            for entry, figure in figures.items()
            if (limit := getattr(budget, entry)) is not None
        }
        chosen, result = solve(self.layers, self.rest, limits)
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
        )


def decompose(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` whose layers are what the plan says; the model is left untouched.

    Raises:
        ConfigError: If the plan names a layer that the model has not.
        UnsupportedLayerError: If a layer cannot be factorized; names it.
    """
    return replace_layers(model, plan.structures())


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


def score(
    model: nn.Module, example_inputs: tuple[Tensor, ...], cost_model: CostModel, *, precision: str = "fp32"
) -> ModelScores:
    """Price every candidate of every layer, and its error from the weight's spectra.

    Args:
        model: Run once on the example inputs in ``eval`` mode; left as it was.
        example_inputs: Their shapes are those that costs are for.
        cost_model: The target's.
        precision: Decides the bytes of a value.

    Raises:
        UnsupportedLayerError: If a layer's weights are not finite; names it.
    """
    supported, refused = supported_layers(model)
    modules = dict(model.named_modules())
    names = [*supported, *(name for name in refused if isinstance(modules[name], nn.Conv1d | nn.Conv2d | nn.Conv3d))]
    in_shapes = _input_shapes(model, example_inputs, {name: modules[name] for name in names})
    layers = []
    for name in names:
        if not in_shapes[name]:
            continue  # never run: it costs nothing
        try:
            scores = _score_layer(
                name,
                modules[name],
                in_shapes[name],
                cost_model=cost_model,
                precision=precision,
                refused=refused.get(name, ""),
            )
        except UnsupportedLayerError as error:
            raise UnsupportedLayerError(f"layer {name!r}: {error}") from error
        layers.append(scores)
    counted = sum(layer.candidates[0].cost.parameters for layer in layers)
    others = sum(parameter.numel() for parameter in model.parameters()) - counted
    rest = LayerCost(parameters=others, macs=0, artifact_bytes=others * _BYTES[precision], latency_ms=0.0, peak_bytes=0)
    return ModelScores(precision=precision, latency_source=cost_model.source, layers=tuple(layers), rest=rest)


def _input_shapes(
    model: nn.Module, example_inputs: tuple[Tensor, ...], layers: Mapping[str, nn.Module]
) -> dict[str, list[Shape]]:
    """Run the model once; return the shapes that each layer is called with, one a call."""
    shapes: dict[str, list[Shape]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: shapes[name].append(tuple(inputs[0].shape)))
        for name, layer in layers.items()
    ]
    training = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(*example_inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    return shapes


def _geometry(layer: nn.Module) -> ConvGeometry:
    """Return a layer's geometry; 'same' and non-zero paddings cost what equal zero padding would."""
    if isinstance(layer, nn.Linear):
        return ConvGeometry()
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    if layer.padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    else:
        padding = (0,) * len(layer.stride) if isinstance(layer.padding, str) else tuple(layer.padding)
    return ConvGeometry(tuple(layer.stride), padding, tuple(layer.dilation), layer.groups)


def _cost(
    structure: Structure, layer: nn.Module, calls: Sequence[Shape], cost_model: CostModel, precision: str
) -> LayerCost:
    geometry = _geometry(layer)
    bias = getattr(layer, "bias", None)
    parameters = structure.num_params * geometry.groups + (0 if bias is None else bias.numel())
    plan = schedule(structure, geometry)
    shapes = [shape if geometry.spatial_axes else (prod(shape[:-1]), shape[-1]) for shape in calls]
    primitives = [primitive for shape in shapes for primitive in plan.primitives(shape)]
    width = _BYTES[precision]
    return LayerCost(
        parameters=parameters,
        macs=sum(primitive.macs for primitive in primitives),
        artifact_bytes=parameters * width,
        latency_ms=cost_model.latency_ms(primitives),
        peak_bytes=max(primitive.in_elements + primitive.out_elements for primitive in primitives) * width,
    )


def _score_layer(
    name: str, layer: nn.Module, calls: Sequence[Shape], *, cost_model: CostModel, precision: str, refused: str
) -> LayerScores:
    weight = layer_weight(layer)
    shape = tuple(weight.shape[1:])
    as_it_is = Structure(factors=(Factor(shape=shape),), ranks={})
    dense = Candidate(family="dense", structure=None, cost=_cost(as_it_is, layer, calls, cost_model, precision))
    if refused:
        return LayerScores(
            name=name,
            kind=type(layer).__name__,
            weight_shape=tuple(layer.get_parameter("weight").shape),
            considered=1,
            candidates=(dense,),
            refused=refused,
        )
    errors = _Errors(weight)
    found = []
    for family, structure in enumerate_structures(shape):
        cost = _cost(structure, layer, calls, cost_model, precision)
        error = errors(structure)
        # Until sensitivities are measured, a layer's loss is its squared relative error: all layers count alike.
        found.append(
            Candidate(family=family, structure=structure, cost=cost, relative_error=error, predicted_loss=error**2)
        )
    kept = [candidate for candidate in undominated([dense, *found]) if candidate.structure is not None]
    return LayerScores(
        name=name,
        kind=type(layer).__name__,
        weight_shape=tuple(layer.get_parameter("weight").shape),
        considered=len(found) + 1,
        candidates=(dense, *kept),
    )


class _Errors:
    """Errors of a layer's structures in closed form: one spectrum a split, one core for all Tucker-2 ranks."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.double()
        self.norm = float(torch.linalg.vector_norm(self.weight))
        self.cache: dict[tuple[Shape, ...], Tensor] = {}

    def __call__(self, structure: Structure) -> float:
        """Return the relative error over all groups."""
        if self.norm == 0:
            return 0.0
        shapes = tuple(factor.shape for factor in structure.factors)
        if shapes not in self.cache:
            self.cache[shapes] = self._two(shapes) if len(shapes) == 2 else self._tucker2()
        kept = self.cache[shapes][tuple(rank - 1 for rank in structure.ranks.values())]
        return float((1 - kept / self.norm**2).clamp_min(0).sqrt())

    def _two(self, shapes: tuple[Shape, ...]) -> Tensor:
        """Return the energy kept by each rank."""
        values = torch.stack([spectrum(group, shapes).singular_values for group in self.weight])
        return values.square().sum(0).cumsum(0)

    def _tucker2(self) -> Tensor:
        """Return the energy kept by each pair of ranks of the TT-SVD (De Lathauwer 2000, truncated).

        A pair's second step sees only the first step's components, so each out rank has a spectrum of its own.
        """
        out, inp = self.weight.shape[1:3]
        kept = torch.zeros(out, inp, dtype=torch.float64)
        for group in self.weight:
            _, values, right = torch.linalg.svd(group.reshape(out, -1), full_matrices=False)
            rows = (values[:, None] * right).reshape(len(values), inp, -1).transpose(0, 1)
            for rank in range(1, out + 1):
                part = rows[:, : min(rank, len(values))].reshape(inp, -1)
                energies = torch.linalg.eigvalsh(part @ part.T).flip(0).clamp_min(0)
                kept[rank - 1] += energies.cumsum(0)
        return kept
