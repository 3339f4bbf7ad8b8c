"""The factor convolution, planned ahead: which axes each factor contracts, opens, groups and folds.

All couplings share this one algorithm (SeKron, arXiv 2210.06299). Beside batch and spatial axes, the state of the
computation carries a list of channel axes: the layer's groups ``g``, the input parts ``c<k>`` of the factors not used
yet, the output parts ``f<k>`` of those used, and the open labels. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from math import prod

from sekron_edge.nn._taps import ConvGeometry, Taps, taps_of
from sekron_edge.primitives import Linear, Permute, Primitive, Reshape
from sekron_edge.structure import Structure

GROUP_AXIS = "g"
# TensorFlow Lite Micro permutes this many at most; XNNPACK six.
_MOST_AXES = 5
# More factors have too many orders to try.
_MOST_ORDERED = 5
# About how many MACs a CPU does while it reads or writes a value: in a convolution, and in a permute.
_MOVED, _PERMUTED = 5, 25
# Orders are compared for this height and width of the output; for a transposed convolution, of the input.
_IMAGE = 14


@dataclass(frozen=True)
class Move:
    """A permute of the state's axes, with as few axes as possible.

    Axes of size 1 are left out, and axes that move together are merged, the spatial axes among them.

    Attributes:
        lead: Product of the channel axes that stay in front, with the batch.
        axes: Sizes of the axes between.
        trail: Product of the channel axes that stay at the end, with the spatial axes.
        order: Of all axes: batch and ``lead`` (0), ``axes``, ``trail`` and spatial axes.
    """

    lead: int
    axes: tuple[int, ...]
    trail: int
    order: tuple[int, ...]

    def shape(self, batch: int, spatial: Sequence[int]) -> tuple[int, ...]:
        """Return the shape that is permuted."""
        return (batch * self.lead, *self.axes, self.trail * prod(spatial))


@dataclass(frozen=True)
class Step:
    """One factor's turn.

    Attributes:
        factor: Number of the factor (0 is the outermost).
        moves: Bring the state's channel axes into the order fold, group, contract; none if they are in it.
        fold: Product of the axes that go to the batch.
        groups: Product of the axes that state, factor and remaining factors all carry.
        contract: Product of the axes that end here.
        open: Product of the axes that begin here.
        weight_order: From the factor's own axes (layer groups, labels, modes) to group, open, contract, taps; of a
            transposed convolution to group, contract, open, taps.
        taps: The convolution.
        axes: Names and sizes of its output's channel axes, in order; those that are folded come first.
    """

    factor: int
    moves: tuple[Move, ...]
    fold: int
    groups: int
    contract: int
    open: int
    weight_order: tuple[int, ...]
    taps: Taps
    axes: tuple[tuple[str, int], ...]

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the factor as a weight of a convolution, or of a linear layer."""
        if not self.taps.kernel and self.groups == 1:
            return (self.open, self.contract)
        kernel = self.taps.kernel or (1,)
        if self.taps.kind == "transposed":
            return (self.groups * self.contract, self.open, *kernel)
        return (self.groups * self.open, self.contract, *kernel)


@dataclass(frozen=True)
class Schedule:
    """All steps, then the moves that put the output's parts in order (none if they are in order)."""

    steps: tuple[Step, ...]
    final_moves: tuple[Move, ...]

    @property
    def last_is_output(self) -> bool:
        """Whether the last step's channels are the layer's output channels, in order."""
        # By its length: torch.export does not support `not` of a tuple.
        return len(self.final_moves) == 0 and self.steps[-1].fold == 1

    @property
    def rearranges(self) -> bool:
        """Whether any step moves channels or folds them into the batch."""
        return len(self.final_moves) > 0 or any(len(step.moves) > 0 or step.fold > 1 for step in self.steps)

    def primitives(self, in_shape: Sequence[int]) -> tuple[Primitive, ...]:
        """Return the operations on an input ``(batch, C, *spatial)``, for counting and for latency models."""
        batch, spatial = in_shape[0], tuple(in_shape[2:])
        primitives: list[Primitive] = []
        state = (batch, in_shape[1])
        for step in self.steps:
            rows, channels = batch * step.fold, step.groups * step.contract
            primitives += _rearranged(step.moves, state, (rows, channels), batch, spatial)
            state = (rows, step.groups * step.open)
            if not spatial and step.groups == 1:
                primitives.append(Linear(rows, step.contract, step.open))
                continue
            primitives.append(step.taps.primitive((rows, channels, *spatial), step.groups * step.open, step.groups))
            spatial = step.taps.out_spatial(spatial)
        rows, channels = state
        primitives += _rearranged(self.final_moves, state, (batch, rows * channels // batch), batch, spatial)
        return tuple(primitives)


def _rearranged(
    moves: Sequence[Move], before: tuple[int, int], after: tuple[int, int], batch: int, spatial: Sequence[int]
) -> list[Primitive]:
    """Return the permutes from one state ``(rows, channels)`` to another, or a reshape where only rows change."""
    if moves:
        return [Permute(move.shape(batch, spatial), move.order) for move in moves]
    pixels = prod(spatial)
    return [] if before == after or pixels == 1 else [Reshape((*before, pixels), (*after, pixels))]


def _moves(axes: Sequence[str], wanted: Sequence[str], size: dict[str, int]) -> tuple[Move, ...]:
    """Return the moves from ``axes`` to ``wanted``: none if only axes of size 1 would move, seldom several."""
    before = [axis for axis in axes if size[axis] > 1]
    after = [axis for axis in wanted if size[axis] > 1]
    if before == after:
        return ()
    move = _move(before, after, size)
    if len(move.order) <= _MOST_AXES:
        return (move,)
    # Bring some axes to the front first: the others keep their order, and move as one. The front then stays.
    ways = []
    for count in range(1, len(after)):
        front = after[:count]
        between = [*front, *(axis for axis in before if axis not in front)]
        if between != before and len((first := _move(before, between, size)).order) <= _MOST_AXES:
            ways.append((first, *_moves(between, after, size)))
    return min(ways, key=len)


def _move(before: Sequence[str], after: Sequence[str], size: dict[str, int]) -> Move:
    # Places before the move, in the order after it; 0 is the batch, the last one the spatial axes.
    places = [0, *(before.index(axis) + 1 for axis in after), len(before) + 1]
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    ordered = sorted(runs)
    sizes = [prod(size[before[place - 1]] for place in run if 0 < place <= len(before)) for run in ordered]
    return Move(sizes[0], tuple(sizes[1:-1]), sizes[-1], tuple(ordered.index(run) for run in runs))


@lru_cache(maxsize=4096)
def schedule(structure: Structure, geometry: ConvGeometry) -> Schedule:
    """Plan the factor convolution in the order of factors that costs least; from last to first if all cost the same.

    The cheapest order is a function of structure and geometry only (for a small output), so that pricing, running and
    loading agree.

    Args:
        structure: Of one group's weight, ``(F / groups, C / groups, *kernel)``.
        geometry: The layer's attributes.
    """
    count = len(structure.factors)
    first = tuple(reversed(range(count)))
    if count > _MOST_ORDERED:
        return schedule_in_order(structure, geometry, first)
    # Without padding, so that layers get the same order whether their padding is done before the factors or not.
    bare = replace(geometry, padding=(0,) * geometry.spatial_axes)
    spatial = (_IMAGE,) * geometry.spatial_axes
    if not geometry.transposed:
        spatial = tuple(
            (kernel - 1) * dilation + 1 + (_IMAGE - 1) * stride
            for kernel, dilation, stride in zip(structure.shape[2:], geometry.dilation, geometry.stride, strict=True)
        )
    shape = (1, structure.shape[1] * geometry.groups, *spatial)
    orders = sorted(permutations(first), key=lambda order: order != first)
    best = min(orders, key=lambda order: _effort(schedule_in_order(structure, bare, order), shape))
    return schedule_in_order(structure, geometry, best)


def _effort(plan: Schedule, in_shape: Sequence[int]) -> int:
    """Weigh a schedule: its MACs, and the values that convolutions and permutes read and write."""
    total = 0
    for primitive in plan.primitives(in_shape):
        weight = _PERMUTED if isinstance(primitive, Permute | Reshape) else _MOVED
        total += primitive.macs + weight * (primitive.in_elements + primitive.out_elements)
    return total


def schedule_in_order(structure: Structure, geometry: ConvGeometry, turns: Sequence[int]) -> Schedule:
    """Plan the factor convolution in a given order of factors.

    Args:
        structure: Of one group's weight.
        geometry: The layer's attributes.
        turns: The number of every factor, once; the first is applied to the input.
    """
    factors, dims = structure.factors, geometry.spatial_axes
    count = len(factors)
    size = {GROUP_AXIS: geometry.groups, **dict(structure.ranks)}
    for k, factor in enumerate(factors):
        size[f"f{k}"], size[f"c{k}"] = factor.shape[0], factor.shape[1]
    taps = taps_of(structure, geometry, turns)

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
        channels = (*opened, *contract) if taps[turn].kind != "transposed" else (*contract, *opened)
        steps.append(
            Step(
                factor=k,
                moves=_moves(state, wanted, size),
                fold=prod(size[axis] for axis in fold),
                groups=prod(size[axis] for axis in group),
                contract=prod(size[axis] for axis in contract),
                open=prod(size[axis] for axis in opened),
                weight_order=(
                    *(own.index(axis) for axis in (*group, *channels)),
                    *range(len(own), len(own) + dims),
                ),
                taps=taps[turn],
                axes=tuple((axis, size[axis]) for axis in (*fold, *group, *opened)),
            )
        )
        state = [*fold, *group, *opened]
    final = [GROUP_AXIS, *(f"f{k}" for k in range(count))]
    return Schedule(tuple(steps), _moves(state, final, size))


def _lookahead(opened: list[str], next_labels: Sequence[str]) -> list[str]:
    """Order the opened axes so that those the next factor uses come last, where it needs them."""
    return sorted(opened, key=lambda axis: axis in next_labels)
