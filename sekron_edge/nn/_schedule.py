"""The factor convolution, worked out ahead: which axes each factor contracts, opens, groups and folds.

All couplings share this one algorithm (SeKron, arXiv 2210.06299). The state of the
computation carries, beside batch and spatial axes, a list of channel axes: the layer's groups ``g``, the input
parts ``c<k>`` of the factors not used yet, the output parts ``f<k>`` of those used, and the open labels. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import prod

from sekron_edge.primitives import Conv, Linear, Permute, Primitive
from sekron_edge.structure import Structure

GROUP_AXIS = "g"
# Orders of more factors are too many to try.
_MOST_ORDERED = 5
# About how many MACs a CPU does in the time that it reads or writes a value: in a convolution, and in a permute.
_MOVED, _PERMUTED = 5, 25
_IMAGE = 14


@dataclass(frozen=True)
class ConvGeometry:
    """The attributes of a convolution that its factors have to keep; no spatial axes for a linear layer.

    ``padding`` is that of zeros at both ends of each axis; any other kind is done before the factors.
    """

    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def spatial_axes(self) -> int:
        """Number of spatial axes."""
        return len(self.stride)


@dataclass(frozen=True)
class Step:
    """One factor's turn.

    Attributes:
        factor: Which factor (0 is the outermost).
        permute: Order that brings the state's channel axes to fold, group, contract; ``None`` if they stand so.
        axes: The sizes of the state's channel axes before the permute.
        fold: Product of the axes that go to the batch.
        groups: Product of the axes that state, factor and the rest all carry.
        contract: Product of the axes that end here.
        open: Product of the axes that begin here.
        weight_order: From the factor's own axes (layer groups, labels, modes) to group, open, contract, taps.
        kernel, stride, padding, dilation: Of the convolution.
    """

    factor: int
    permute: tuple[int, ...] | None
    axes: tuple[int, ...]
    fold: int
    groups: int
    contract: int
    open: int
    weight_order: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def weight_shape(self, spatial_axes: int) -> tuple[int, ...]:
        """Return the shape of the factor as a weight of a convolution, or of a linear layer."""
        if spatial_axes == 0 and self.groups == 1:
            return (self.open, self.contract)
        return (self.groups * self.open, self.contract, *(self.kernel or (1,)))


@dataclass(frozen=True)
class Schedule:
    """All steps, then the permute that puts the output's parts in order (``None`` if they stand so)."""

    steps: tuple[Step, ...]
    final_permute: tuple[int, ...] | None
    final_axes: tuple[int, ...]

    @property
    def last_is_output(self) -> bool:
        """Whether the last step's channels are the layer's output channels, in order."""
        return self.final_permute is None and self.steps[-1].fold == 1

    def primitives(self, in_shape: Sequence[int]) -> tuple[Primitive, ...]:
        """Return the operations on an input ``(batch, C, *spatial)``, for counting and for latency models."""
        batch, spatial = in_shape[0], tuple(in_shape[2:])
        found: list[Primitive] = []
        for step in self.steps:
            if step.permute is not None:
                found.append(_permute(batch, step.axes, step.permute, spatial))
            rows, channels = batch * step.fold, step.groups * step.contract
            if not spatial and step.groups == 1:
                found.append(Linear(rows, step.contract, step.open))
                continue
            padded = tuple(n + 2 * p for n, p in zip(spatial, step.padding, strict=True))
            out = tuple(
                (n - d * (k - 1) - 1) // s + 1
                for n, k, s, d in zip(padded, step.kernel, step.stride, step.dilation, strict=True)
            )
            found.append(
                Conv(
                    in_shape=(rows, channels, *spatial),
                    out_channels=step.groups * step.open,
                    kernel=step.kernel,
                    stride=step.stride,
                    dilation=step.dilation,
                    groups=step.groups,
                    out_spatial=out,
                )
            )
            spatial = out
        if self.final_permute is not None:
            found.append(_permute(batch, self.final_axes, self.final_permute, spatial))
        return tuple(found)


def _permute(batch: int, axes: tuple[int, ...], order: tuple[int, ...], spatial: tuple[int, ...]) -> Permute:
    shape = (batch, *axes, prod(spatial))
    return Permute(shape, (0, *(axis + 1 for axis in order), len(shape) - 1))


def _order(axes: Sequence[str], wanted: Sequence[str], size: dict[str, int]) -> tuple[int, ...] | None:
    """Return the permutation from ``axes`` to ``wanted``; ``None`` if only axes of size 1 would move."""
    moving = [axis for axis in axes if size[axis] > 1]
    if moving == [axis for axis in wanted if size[axis] > 1]:
        return None
    return tuple(axes.index(axis) for axis in wanted)


@lru_cache(maxsize=4096)
def schedule(structure: Structure, geometry: ConvGeometry) -> Schedule:
    """Work out the factor convolution, in the order of factors that costs least; from the last to the first if all do.

    What costs least is a function of structure and geometry alone (on a small image), so that what is priced, what
    runs and what is loaded again agree.

    Args:
        structure: Of one group's weight, ``(F / groups, C / groups, *kernel)``.
        geometry: The layer's attributes.
    """
    count = len(structure.factors)
    first = tuple(reversed(range(count)))
    if count > _MOST_ORDERED:
        return schedule_in_order(structure, geometry, first)
    orders = sorted(permutations(first), key=lambda order: order != first)
    return min((schedule_in_order(structure, geometry, order) for order in orders), key=_effort(structure, geometry))


def _effort(structure: Structure, geometry: ConvGeometry) -> Callable[[Schedule], int]:
    """Return what weighs a schedule: MACs, and the values that convolutions and permutes read and write."""
    shape = (1, structure.shape[1] * geometry.groups, *(_IMAGE * stride for stride in geometry.stride))

    def effort(plan: Schedule) -> int:
        total = 0
        for primitive in plan.primitives(shape):
            weight = _PERMUTED if isinstance(primitive, Permute) else _MOVED
            total += primitive.macs + weight * (primitive.in_elements + primitive.out_elements)
        return total

    return effort


def schedule_in_order(structure: Structure, geometry: ConvGeometry, turns: Sequence[int]) -> Schedule:
    """Work out the factor convolution in a given order of factors.

    Args:
        structure: Of one group's weight.
        geometry: The layer's attributes.
        turns: Every factor once, by its number; the first is applied to the input.
    """
    factors, dims = structure.factors, geometry.spatial_axes
    count = len(factors)
    size = {GROUP_AXIS: geometry.groups, **structure.ranks}
    for k, factor in enumerate(factors):
        size[f"f{k}"], size[f"c{k}"] = factor.shape[0], factor.shape[1]
    taps = [[k for k in turns if factors[k].shape[2 + axis] > 1] for axis in range(dims)]

    state = [GROUP_AXIS, *(f"c{k}" for k in range(count))]
    steps: list[Step] = []
    for turn, k in enumerate(turns):
        waiting = {label for later in turns[turn + 1 :] for label in factors[later].labels}
        labels = factors[k].labels
        contract = [axis for axis in state if axis == f"c{k}" or (axis in labels and axis not in waiting)]
        group = [GROUP_AXIS, *(axis for axis in state if axis in labels and axis in waiting)]
        opened = [f"f{k}", *(label for label in labels if label not in state)]
        opened = _lookahead(opened, factors[turns[turn + 1]].labels if turn + 1 < count else ())
        fold = [axis for axis in state if axis not in contract and axis not in group]
        wanted = [*fold, *group, *contract]
        own = [GROUP_AXIS, *labels, f"f{k}", f"c{k}"]
        later_taps = [prod(factors[inner].shape[2 + axis] for inner in range(k + 1, count)) for axis in range(dims)]
        steps.append(
            Step(
                factor=k,
                permute=_order(state, wanted, size),
                axes=tuple(size[axis] for axis in state),
                fold=prod(size[axis] for axis in fold),
                groups=prod(size[axis] for axis in group),
                contract=prod(size[axis] for axis in contract),
                open=prod(size[axis] for axis in opened),
                weight_order=(
                    *(own.index(axis) for axis in (*group, *opened, *contract)),
                    *range(len(own), len(own) + dims),
                ),
                kernel=factors[k].shape[2:],
                stride=tuple(
                    geometry.stride[axis] if k == (taps[axis][-1] if taps[axis] else turns[0]) else 1
                    for axis in range(dims)
                ),
                padding=tuple(geometry.padding[axis] if k == (taps[axis] or turns)[0] else 0 for axis in range(dims)),
                dilation=tuple(geometry.dilation[axis] * later_taps[axis] for axis in range(dims)),
            )
        )
        state = [*fold, *group, *opened]
    final = [GROUP_AXIS, *(f"f{k}" for k in range(count))]
    return Schedule(tuple(steps), _order(state, final, size), tuple(size[axis] for axis in state))


def _lookahead(opened: list[str], next_labels: Sequence[str]) -> list[str]:
    """Order the opened axes so that those the next factor uses stand last, where it wants them."""
    return sorted(opened, key=lambda axis: axis in next_labels)
