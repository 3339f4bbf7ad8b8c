"""What a layer costs, with a structure or as it is: parameters, MACs, bytes, predicted time, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from torch import Tensor, nn

from sekron_edge.nn import layer_geometry, layer_weight, schedule
from sekron_edge.planner._plan import LayerCost
from sekron_edge.primitives import VALUE_BYTES, Permute, Primitive
from sekron_edge.structure import Factor, Shape, Structure


class CostModel(Protocol):
    """What the planner asks of a device: the time of operations, and where that figure is from."""

    @property
    def source(self) -> str:
        """Say whether it was measured, and on what, or is estimated."""
        ...

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        ...


def layer_cost(
    structure: Structure, layer: nn.Module, calls: Sequence[Shape], cost_model: CostModel, precision: str
) -> LayerCost:
    """Price a layer with a structure for each group's weight, over all calls (shapes of what it is called with)."""
    geometry, ends = layer_geometry(layer)
    bias = getattr(layer, "bias", None)
    parameters = structure.num_params * geometry.groups + (0 if bias is None else bias.numel())
    plan = schedule(structure, geometry)
    shapes = [_padded(shape, ends) if geometry.spatial_axes else (prod(shape[:-1]), shape[-1]) for shape in calls]
    primitives = [primitive for shape in shapes for primitive in plan.primitives(shape)]
    return _cost(parameters, primitives, cost_model, precision)


def refused_cost(layer: nn.Module, calls: Sequence[Shape], cost_model: CostModel, precision: str) -> LayerCost:
    """Price a layer that stays as it is. What is no convolution costs its parameters; its time is in the rest."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        whole = Structure(factors=(Factor(shape=tuple(layer_weight(layer).shape[1:])),), ranks={})
        return layer_cost(whole, layer, calls, cost_model, precision)
    return _cost(sum(parameter.numel() for parameter in layer.parameters()), [], cost_model, precision)


def _cost(parameters: int, primitives: Sequence[Primitive], cost_model: CostModel, precision: str) -> LayerCost:
    width = VALUE_BYTES[precision]
    permutes = [primitive for primitive in primitives if isinstance(primitive, Permute)]
    return LayerCost(
        parameters=parameters,
        macs=sum(primitive.macs for primitive in primitives),
        artifact_bytes=parameters * width,
        latency_ms=cost_model.latency_ms(primitives),
        peak_bytes=max((p.in_elements + p.out_elements for p in primitives), default=0) * width,
        activation_bytes=sum(primitive.out_elements for primitive in primitives) * width,
        permuted_bytes=sum(primitive.out_elements for primitive in permutes) * width,
    )


def _padded(shape: Shape, ends: Sequence[int]) -> Shape:
    """Return an input's shape after explicit padding, given in ``F.pad``'s order."""
    more = [before + after for before, after in zip(ends[::2], ends[1::2], strict=True)][::-1]
    kept = len(shape) - len(more)
    return (*shape[:kept], *(n + m for n, m in zip(shape[kept:], more, strict=True)))


def weight_shape(layer: nn.Module) -> Shape:
    """Return the shape of a layer's weight."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return tuple(weight.shape)
