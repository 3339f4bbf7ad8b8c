"""Costs of a layer, with a structure or as it is: parameters, MACs, bytes, predicted time, in closed form."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sekron_edge.budget import LayerCost, planned_resources
from sekron_edge.nn import OperationGraph, layer_geometry, layer_primitives, layer_weight, peak_elements
from sekron_edge.primitives import (
    VALUE_BYTES,
    WEIGHT_BYTES,
    WEIGHTS_ALONE,
    Conv,
    ConvTranspose,
    Elementwise,
    FileCosts,
    Linear,
    MatMul,
    Permute,
    Primitive,
)
from sekron_edge.structure import Factor, Shape, Structure

_WRITING = (Conv, ConvTranspose, Linear, MatMul, Permute)


@runtime_checkable
class CostModel(Protocol):
    """The planner's view of a device and a runtime: the time of operations, and the origin of that figure."""

    @property
    def source(self) -> str:
        """Return whether it was measured, and where, or is estimated."""
        ...

    def latency_ms(self, primitives: Sequence[Primitive]) -> float:
        """Return the time of running the operations one after another, in milliseconds."""
        ...


@dataclass(frozen=True)
class Pricing:
    """Everything that turns operations into costs: times, the precision of values, bytes of operations in the file.

    Attributes:
        cost_model: Times of operations.
        precision: Of weights and values.
        files: Bytes of operations.
        in_float: Layers that stay in float where the others are rounded; None if all are priced alike.
        converted: Whether values are integers elsewhere: each run of a layer then brings two conversions.
    """

    cost_model: CostModel
    precision: str = "fp32"
    files: FileCosts = WEIGHTS_ALONE
    in_float: InFloat | None = None
    converted: bool = False

    def of(self, layer: str) -> Pricing:
        """Return the prices that hold for a layer."""
        kept = self.in_float
        return self if kept is None or layer not in kept.layers else kept.prices


@dataclass(frozen=True)
class InFloat:
    """Layers that stay in float where all others are rounded.

    Attributes:
        layers: Their names.
        prices: Of these layers.
    """

    layers: frozenset[str]
    prices: Pricing


@dataclass(frozen=True)
class Call:
    """One call of a layer: its input's shape, and the elements that live at the same time, its input's included.

    ``has_norm`` says that a batch norm follows, which the layer takes into its weights if a factor can.
    """

    in_shape: Shape
    held: int = 0
    kept: int = 0
    has_norm: bool = False


def calls_of(graph: OperationGraph) -> dict[str, list[Call]]:
    """Return the calls of every layer that a model runs, by its name."""
    calls: dict[str, list[Call]] = {}
    for operation, held, kept in zip(graph.operations, graph.held(), graph.kept_inputs(), strict=True):
        if operation.layer is not None:
            calls.setdefault(operation.layer, []).append(Call(operation.in_shape, held, kept, operation.has_norm))
    return calls


class Prices:
    """Prices of layers with structures, for several targets; layers that are alike are priced once."""

    def __init__(self, targets: Sequence[Pricing]) -> None:
        self._targets = targets
        self._known: dict[Hashable, tuple[Sequence[Sequence[Primitive]], LayerCost]] = {}
        # Pricing is pure Python: two threads at once take as long as one after the other, and would do it twice.
        self._turn = Lock()

    def cost(self, structure: Structure, layer: nn.Module, calls: Sequence[Call], target: int, name: str) -> LayerCost:
        """Return the result of `layer_cost` for one of the targets, and for the layer of that name."""
        prices = self._targets[target].of(name)
        bias = getattr(layer, "bias", None)
        shapes = tuple((call.in_shape, call.has_norm) for call in calls)
        key = (
            structure,
            layer_geometry(layer),
            None if bias is None else bias.numel(),
            shapes,
            (target, prices.precision),
        )
        with self._turn:
            if key not in self._known:
                self._known[key] = _priced(structure, layer, calls, prices)
        return _with_peak(*self._known[key], calls, prices)


def layer_cost(structure: Structure, layer: nn.Module, calls: Sequence[Call], target: Pricing) -> LayerCost:
    """Price a layer with a structure for each group's weight, over all calls."""
    return _with_peak(*_priced(structure, layer, calls, target), calls, target)


def _priced(
    structure: Structure, layer: nn.Module, calls: Sequence[Call], target: Pricing
) -> tuple[Sequence[Sequence[Primitive]], LayerCost]:
    """Return the operations of each call, and the layer's price without its peak, which depends on other layers."""
    geometry, _ = layer_geometry(layer)
    bias = getattr(layer, "bias", None)
    parameters = structure.num_params * geometry.groups + (0 if bias is None else bias.numel())
    runs = [layer_primitives(structure, layer, call.in_shape, has_norm=call.has_norm) for call in calls]
    priced = [[*run, *_conversions(run)] for run in runs] if target.converted else runs
    return runs, _cost(parameters, list(chain.from_iterable(priced)), 0, target)


def _conversions(run: Sequence[Primitive]) -> list[Primitive]:
    """Return what brings values from integers to floats before operations, and back after them.

    Each is priced as a function of a value in float, which moves eight bytes where a conversion moves five: an upper
    bound, since nothing is calibrated for it.
    """
    ends = (run[0].in_elements, run[-1].out_elements)
    return [Elementwise("clip", (1, values)) for values in ends]


def _with_peak(
    runs: Sequence[Sequence[Primitive]], cost: LayerCost, calls: Sequence[Call], target: Pricing
) -> LayerCost:
    peak = max(peak_elements(run, call.held, call.kept) for run, call in zip(runs, calls, strict=True))
    return cost.model_copy(update={"peak_bytes": peak * VALUE_BYTES[target.precision]})


def refused_cost(layer: nn.Module, calls: Sequence[Call], target: Pricing, *, elsewhere: int = 0) -> LayerCost:
    """Price a linear layer or a convolution that stays as it is.

    Args:
        layer: The layer.
        calls: All its calls.
        target: Its prices.
        elsewhere: Number of its weights that another layer has as well, and that are counted there.
    """
    whole = Structure(factors=(Factor(shape=tuple(layer_weight(layer).shape[1:])),), ranks={})
    cost = layer_cost(whole, layer, calls, target)
    shared = round(elsewhere * WEIGHT_BYTES[target.precision])
    return cost.model_copy(
        update={"parameters": cost.parameters - elsewhere, "artifact_bytes": cost.artifact_bytes - shared}
    )


def hidden_cost(name: str, graph: OperationGraph, target: Pricing) -> LayerCost:
    """Price weights that are no layer's, over all operations with them."""
    own = [
        (operation.primitives, held, kept)
        for operation, held, kept in zip(graph.operations, graph.held(), graph.kept_inputs(), strict=True)
        if operation.layer == name
    ]
    peak = max(peak_elements(*each) for each in own)
    primitives = [primitive for run, _, _ in own for primitive in run]
    return _cost(graph.hidden[name].parameters, primitives, peak, target)


def rest_cost(parameters: int, graph: OperationGraph, target: Pricing) -> LayerCost:
    """Price everything outside of layers: sums, pooling, activations, and parameters that belong to no layer."""
    between = [
        (operation.primitives, held, kept)
        for operation, held, kept in zip(graph.operations, graph.held(), graph.kept_inputs(), strict=True)
        if operation.layer is None
    ]
    peak = max((peak_elements(*each) for each in between), default=0)
    primitives = [primitive for own, _, _ in between for primitive in own]
    return _cost(parameters, primitives, peak, target)


def _cost(parameters: int, primitives: Sequence[Primitive], peak: int, target: Pricing) -> LayerCost:
    width = VALUE_BYTES[target.precision]
    permutes = [primitive for primitive in primitives if isinstance(primitive, Permute)]
    writing = [primitive for primitive in primitives if isinstance(primitive, _WRITING)]
    counted = {one.name: one.count(primitives) for one in planned_resources() if one.count is not None}
    return LayerCost(
        parameters=parameters,
        macs=sum(primitive.macs for primitive in primitives),
        artifact_bytes=round(parameters * WEIGHT_BYTES[target.precision]) + target.files.bytes(primitives),
        latency_ms=target.cost_model.latency_ms(primitives),
        peak_bytes=peak * width,
        activation_bytes=sum(primitive.out_elements for primitive in writing) * width,
        permuted_bytes=sum(primitive.out_elements for primitive in permutes) * width,
        **counted,
    )


def weight_shape(layer: nn.Module) -> Shape:
    """Return the shape of a layer's weight."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return tuple(weight.shape)
