"""What a layer costs, with a structure or as it is: parameters, MACs, bytes, predicted time, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from torch import Tensor, nn

from sekron_edge.nn import ConvGeometry, schedule
from sekron_edge.planner._plan import LayerCost
from sekron_edge.primitives import Conv, Primitive
from sekron_edge.structure import Factor, Shape, Structure

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


class CostModel(Protocol):
    """What the planner asks of a device: the time of operations, and where that figure is from."""

    @property
    def source(self) -> str:
        """Say whether it was measured, and on what, or is estimated."""
        ...

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        ...


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


def layer_cost(
    structure: Structure, layer: nn.Module, calls: Sequence[Shape], cost_model: CostModel, precision: str
) -> LayerCost:
    """Price a layer with a structure for each group's weight, over all calls (shapes of what it is called with)."""
    geometry = _geometry(layer)
    bias = getattr(layer, "bias", None)
    parameters = structure.num_params * geometry.groups + (0 if bias is None else bias.numel())
    plan = schedule(structure, geometry)
    shapes = [shape if geometry.spatial_axes else (prod(shape[:-1]), shape[-1]) for shape in calls]
    primitives = [primitive for shape in shapes for primitive in plan.primitives(shape)]
    width = VALUE_BYTES[precision]
    return LayerCost(
        parameters=parameters,
        macs=sum(primitive.macs for primitive in primitives),
        artifact_bytes=parameters * width,
        latency_ms=cost_model.latency_ms(primitives),
        peak_bytes=max(primitive.in_elements + primitive.out_elements for primitive in primitives) * width,
    )


def refused_cost(layer: nn.Module, calls: Sequence[Shape], cost_model: CostModel, precision: str) -> LayerCost:
    """Price a layer that stays as it is. What is no convolution costs its parameters; its time is in the rest."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        whole = Structure(factors=(Factor(shape=weight_shape(layer, layer.groups)),), ranks={})
        return layer_cost(whole, layer, calls, cost_model, precision)
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    primitives: list[Primitive] = []
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        # Each input value meets each weight once, as in a convolution whose output is as large as this one's input.
        ones = (1,) * len(layer.stride)
        primitives = [
            Conv(shape, layer.out_channels, tuple(layer.kernel_size), ones, ones, layer.groups, shape[2:])
            for shape in calls
        ]
    width = VALUE_BYTES[precision]
    peak = max((p.in_elements + p.out_elements for p in primitives), default=0)
    return LayerCost(
        parameters=parameters,
        macs=sum(primitive.macs for primitive in primitives),
        artifact_bytes=parameters * width,
        latency_ms=cost_model.latency_ms(primitives),
        peak_bytes=peak * width,
    )


def weight_shape(layer: nn.Module, groups: int = 1) -> Shape:
    """Return the shape of one group's weight."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return (weight.shape[0] // groups, *weight.shape[1:])
