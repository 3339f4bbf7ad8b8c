"""A model as a runtime sees it: operations one after another, and the tensors that live at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from torch import nn

from sekron_edge.nn._geometry import layer_geometry
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear
from sekron_edge.nn._schedule import Schedule, schedule
from sekron_edge.primitives import ChannelScale, Conv, Copy, Elementwise, Primitive
from sekron_edge.structure import Shape, Structure

_IMAGE_RANK = 4


@dataclass(frozen=True)
class Operation:
    """An operation that a runtime runs in one go, or a layer's factors one after another.

    Attributes:
        layer: Qualified name of the layer whose operation it is, or the name of hidden weights; None between these.
        primitives: In order; none where the cost is unknown.
        in_shape: Of the first value that it reads.
        reads: Numbers of the values that it reads.
        writes: Number of the value that it writes.
        has_norm: Whether a batch norm follows that it takes into its weights.
    """

    layer: str | None
    primitives: tuple[Primitive, ...]
    in_shape: Shape
    reads: tuple[int, ...]
    writes: int
    has_norm: bool = False


@dataclass(frozen=True)
class HiddenLayer:
    """Weights that operators multiply with outside of layers: they stay as they are.

    Attributes:
        kind: The class of the layer that would do the same, as ``Linear``; ``MatMul`` where there is none.
        weight_shape: Of the constant that is multiplied with.
        parameters: Number of parameters that the constant is computed from, and that belong to no layer.
        reason: Why they stay as they are.
        sources: Qualified names of the parameters that its constants are computed from.
    """

    kind: str
    weight_shape: Shape
    parameters: int
    reason: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class OperationGraph:
    """Operations in the order they run.

    Attributes:
        operations: In order.
        elements: Number of elements of each value.
        inputs: Values that exist at the beginning.
        outputs: Values that must exist at the end.
        hidden: Weights that are multiplied with outside of layers, by a name that operations have as their ``layer``.
    """

    operations: tuple[Operation, ...]
    elements: Mapping[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    hidden: Mapping[str, HiddenLayer] = field(default_factory=dict)

    def held(self) -> list[int]:
        """Return for each operation the elements that live beside those it reads for the last time or writes."""
        last = {value: index for index, operation in enumerate(self.operations) for value in operation.reads}
        last |= dict.fromkeys(self.outputs, len(self.operations))
        held = []
        live = set(self.inputs)
        for index, operation in enumerate(self.operations):
            ends = {value for value in live if last.get(value, -1) <= index}
            live -= ends
            held.append(sum(self.elements[value] for value in live))
            live.add(operation.writes)
        return held

    def kept_inputs(self) -> list[int]:
        """Return for each operation the elements that it reads and that are still needed after it."""
        last = {value: index for index, operation in enumerate(self.operations) for value in operation.reads}
        last |= dict.fromkeys(self.outputs, len(self.operations))
        return [
            sum(self.elements[value] for value in set(operation.reads) if last[value] > index)
            for index, operation in enumerate(self.operations)
        ]


def peak_elements(primitives: Sequence[Primitive], held: int, kept: int) -> int:
    """Return the most elements that live while operations run one after another, each on the result of the last.

    Args:
        primitives: In order.
        held: Elements that live all the time, ``kept`` among them.
        kept: Those of them that the first operation reads.
    """
    sizes: list[int] = []
    for primitive in primitives:
        steps = _steps(primitive)
        sizes += [before + after for before, after in pairwise(steps)]
    if sizes:
        sizes[0] -= kept
    return held + max(sizes, default=0)


def _steps(primitive: Primitive) -> list[int]:
    """Return the sizes of the values that an operation reads, makes internally and writes."""
    sizes = [primitive.in_elements, primitive.out_elements]
    if isinstance(primitive, Conv) and primitive.padded_shape != primitive.in_shape:
        sizes.insert(1, prod(primitive.padded_shape))
    return sizes


def layer_primitives(
    structure: Structure, layer: nn.Module, in_shape: Shape, *, has_norm: bool = False
) -> tuple[Primitive, ...]:
    """Return the operations of a layer with a structure for each group's weight, on an input of ``in_shape``.

    Args:
        structure: Of one group's weight.
        layer: Its geometry and bias count.
        in_shape: Of the layer's input.
        has_norm: Whether a batch norm follows: where no factor can take it up, it is one more operation.
    """
    geometry, ends = layer_geometry(layer)
    plan = schedule(structure, geometry)
    has_bias = getattr(layer, "bias", None) is not None
    primitives = _on(plan, geometry.spatial_axes, ends, has_bias, in_shape)
    taken_up = bool(structure.whole_outputs) and (has_bias or plan.last_is_output)
    if has_norm and not taken_up and len(in_shape) == _IMAGE_RANK:
        primitives += (channel_scale(_out_shape(plan, _padded(in_shape, ends), primitives[-1].out_elements)),)
    return primitives


def channel_scale(shape: Shape) -> ChannelScale:
    """Return the depthwise convolution that scales and shifts the channels of ``(batch, channels, height, width)``."""
    return ChannelScale(shape, shape[1], (1, 1), (1, 1), (1, 1), shape[1], shape[2:], (0, 0))


def _shift(shape: Shape) -> Conv:
    """Return the depthwise convolution that adds a bias to ``(batch, channels, height, width)``."""
    return Conv(shape, shape[1], (1, 1), (1, 1), (1, 1), shape[1], shape[2:], (0, 0))


def factorized_primitives(layer: FactorizedConv | FactorizedLinear, in_shape: Shape) -> tuple[Primitive, ...]:
    """Return the operations of a layer that computes with factors, on an input of ``in_shape``."""
    ends = layer.explicit_padding if isinstance(layer, FactorizedConv) else ()
    return _on(layer.plan, layer.geometry.spatial_axes, ends, layer.bias is not None, in_shape)


def _on(
    plan: Schedule, spatial_axes: int, ends: Sequence[int], has_bias: bool, in_shape: Shape
) -> tuple[Primitive, ...]:
    if not spatial_axes:
        return plan.primitives((prod(in_shape[:-1]), in_shape[-1]))
    shape = in_shape if len(in_shape) == spatial_axes + 2 else (1, *in_shape)
    padded = _padded(shape, ends)
    primitives: list[Primitive] = [Copy(padded)] if padded != shape else []
    primitives += plan.primitives(padded)
    if has_bias and not plan.last_is_output:
        out = _out_shape(plan, padded, primitives[-1].out_elements)
        primitives.append(_shift(out) if len(out) == _IMAGE_RANK else Elementwise("add", out))
    return tuple(primitives)


def _out_shape(plan: Schedule, in_shape: Shape, elements: int) -> Shape:
    spatial: Shape = tuple(in_shape[2:])
    for step in plan.steps:
        spatial = step.taps.out_spatial(spatial)
    return (in_shape[0], elements // (in_shape[0] * prod(spatial)), *spatial)


def _padded(shape: Shape, ends: Sequence[int]) -> Shape:
    """Return an input's shape after explicit padding, given in ``F.pad``'s order."""
    more = [before + after for before, after in zip(ends[::2], ends[1::2], strict=True)][::-1]
    kept = len(shape) - len(more)
    return (*shape[:kept], *(n + m for n, m in zip(shape[kept:], more, strict=True)))
