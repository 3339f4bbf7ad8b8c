"""Convolution and linear layers that hold factors instead of a weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import UnsupportedLayerError
from sekron_edge.nn._geometry import Convolution, TransposedConvolution, joined_weight, layer_geometry
from sekron_edge.nn._schedule import GROUP_AXIS, Schedule, Step, schedule
from sekron_edge.nn._taps import ConvGeometry
from sekron_edge.structure import Structure
from sekron_edge.tensor import FactorizedTensor

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_IMAGE_AXES = 2
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _run(
    state: Tensor, weights: Sequence[Tensor], bias: Tensor | None, plan: Schedule, dims: int, ones: Tensor | None = None
) -> Tensor:
    """Run the factor convolution on ``(batch, C, *spatial)``.

    The last convolution takes the bias where its output is already the layer's, because runtimes fuse that. Elsewhere
    it is that of a depthwise convolution with ``ones``, where they are given: one fast operator that takes the
    activation after it, and that integers make exactly.
    """
    batch = state.shape[0]
    *_, state = _states(state, weights, bias, plan, dims)
    spatial = state.shape[state.ndim - dims :] if dims else ()
    for move in plan.final_moves:
        state = state.reshape(move.shape(batch, spatial)).permute(move.order)
    if not plan.last_is_output:
        state = state.reshape(batch, -1, *spatial)
    if bias is None or plan.last_is_output:
        return state
    if ones is not None:
        shifted: Tensor = F.conv2d(state, ones, bias, groups=len(ones))
        return shifted
    return state + bias.reshape(-1, *[1] * dims)


def _states(
    state: Tensor, weights: Sequence[Tensor], bias: Tensor | None, plan: Schedule, dims: int
) -> Iterator[Tensor]:
    """Yield the output of each step of the factor convolution, ``(batch * fold, channels, *spatial)``."""
    batch = state.shape[0]
    for position, step in enumerate(plan.steps):
        spatial = state.shape[state.ndim - dims :] if dims else ()
        for move in step.moves:
            state = state.reshape(move.shape(batch, spatial)).permute(move.order)
        weight = weights[step.factor]
        own_bias = bias if plan.last_is_output and position == len(plan.steps) - 1 else None
        if dims == 0 and step.groups == 1:
            state = F.linear(_shaped(state, batch * step.fold, step.contract), weight, own_bias)
        else:
            state = _shaped(state, batch * step.fold, step.groups * step.contract, *(spatial or (1,)))
            state = _convolve(state, weight, own_bias, step, dims)
        yield state


def _shaped(state: Tensor, *shape: int) -> Tensor:
    """Reshape unless the shape is right: converters take any reshape for one that needs channels-first memory."""
    return state if tuple(state.shape) == shape else state.reshape(shape)


def _convolve(state: Tensor, weight: Tensor, bias: Tensor | None, step: Step, dims: int) -> Tensor:
    taps = step.taps
    stride, padding, dilation = taps.stride or 1, taps.padding or 0, taps.dilation or 1
    if taps.kind == "transposed":
        return _spread(state, weight, bias, step)
    gathered: Tensor = _CONV[dims or 1](
        state, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=step.groups
    )
    return gathered


def _spread(state: Tensor, weight: Tensor, bias: Tensor | None, step: Step) -> Tensor:
    taps, groups = step.taps, step.groups
    convolve = _CONV_TRANSPOSE[len(taps.kernel)]
    if not taps.sliced:
        kept: Tensor = convolve(
            state, weight, bias, taps.stride, taps.padding, taps.output_padding, groups, taps.dilation
        )
        return kept
    whole: Tensor = convolve(state, weight, bias, taps.stride, 0, 0, groups, taps.dilation)
    for axis, (cut, extra) in enumerate(zip(taps.padding, taps.output_padding, strict=True), start=2):
        if cut:
            whole = whole.narrow(axis, cut, whole.shape[axis] - 2 * cut + extra)
    return whole


class _Factorized(nn.Module):
    """The common part of both layers: a structure, its schedule, all groups' factors as convolution weights, a bias.

    A factor is stored in the layout that its step convolves with, so that exported layers need not rearrange it (some
    runtimes take at most six axes, and few fold constants).
    """

    def __init__(
        self, structure: Structure, factors: Sequence[Tensor], bias: Tensor | None, geometry: ConvGeometry
    ) -> None:
        super().__init__()
        self.structure = structure
        self.geometry = geometry
        self.plan = schedule(structure, geometry)
        steps = {step.factor: step for step in self.plan.steps}
        self.weights = nn.ParameterList(
            nn.Parameter(_stored(values.detach(), steps[k])) for k, values in enumerate(factors)
        )
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.ones: Tensor | None  # see `_run`
        split = geometry.spatial_axes == _IMAGE_AXES and not self.plan.last_is_output
        channels = structure.shape[0] * geometry.groups
        self.register_buffer("ones", torch.ones(channels, 1, 1, 1) if split else None, persistent=False)
        self.rebuilds = False  # see `rebuilt_kernels`

    def factor_values(self, k: int) -> Tensor:
        """Return the values of factor ``k``, of shape ``(groups, *structure.value_shape(k))``."""
        step = next(step for step in self.plan.steps if step.factor == k)
        shape = (self.geometry.groups, *self.structure.value_shape(k))
        moved: Tensor = self.weights[k].reshape([shape[axis] for axis in step.weight_order])
        return _mirrored(moved.permute([step.weight_order.index(axis) for axis in range(len(shape))]), step)

    def take_(self, factorized: Sequence[FactorizedTensor]) -> None:
        """Take the factors of another approximation with the same structure, in place.

        Args:
            factorized: One for each of the layer's groups.
        """
        for k, values in enumerate(zip(*(one.values for one in factorized), strict=True)):
            step = next(step for step in self.plan.steps if step.factor == k)
            own = self.weights[k]
            own.data = _stored(torch.stack(values).to(own), step)

    def scale_outputs_(self, scale: Tensor, shift: Tensor) -> bool:
        """Scale all outputs and shift them, ``(F,)`` each, in place, by changing one factor and the bias.

        Returns:
            False where the output channels are split among factors: no factor can do it, and nothing is changed.
        """
        whole = self.structure.whole_outputs
        if not whole:
            return False
        k, labels = whole[0], len(self.structure.factors[whole[0]].labels)
        values = self.factor_values(k).detach()
        by_group = scale.reshape(self.geometry.groups, *[1] * labels, -1, *[1] * (values.ndim - labels - 2))
        step = next(step for step in self.plan.steps if step.factor == k)
        self.weights[k].data = _stored(values * by_group, step)
        before = 0.0 if self.bias is None else self.bias.detach()
        self.bias = nn.Parameter(before * scale + shift)
        return True

    def label_ranges(self, x: Tensor) -> dict[str, Tensor]:
        """Return the largest intermediate magnitude at each index of every label, ``(groups, rank)`` each.

        Args:
            x: Real inputs, as for ``forward``.
        """
        state = self._prepared(x)
        dims = self.geometry.spatial_axes
        ranges: dict[str, Tensor] = {}
        for step, after in zip(self.plan.steps, _states(state, list(self.weights), None, self.plan, dims), strict=True):
            names = [name for name, _ in step.axes]
            sized = after.detach().abs().reshape(state.shape[0], *(size for _, size in step.axes), -1)
            for label in set(names) & set(self.structure.labels):
                kept = [names.index(GROUP_AXIS) + 1, names.index(label) + 1]
                others = [axis for axis in range(sized.ndim) if axis not in kept]
                seen = sized.amax(others)
                seen = seen if kept[0] < kept[1] else seen.T
                ranges[label] = seen if label not in ranges else torch.maximum(ranges[label], seen)
        return ranges

    def rescale_labels_(self, scales: Mapping[str, Tensor]) -> None:
        """Multiply intermediates at each index of a label by a scale, ``(groups, rank)``; outputs stay the same."""
        for label, scale in scales.items():
            carrying = [step for step in self.plan.steps if label in self.structure.factors[step.factor].labels]
            for step, by in ((carrying[0], scale), (carrying[-1], 1 / scale)):
                values = self.factor_values(step.factor).detach()
                axis = self.structure.factors[step.factor].labels.index(label) + 1
                shape = [1] * values.ndim
                shape[0], shape[axis] = by.shape
                self.weights[step.factor].data = _stored(values * by.reshape(shape), step)

    def _prepared(self, x: Tensor) -> Tensor:
        """Return a layer's input in the form that its first step takes, with a batch axis."""
        raise NotImplementedError

    def reconstruct(self) -> Tensor:
        """Return the dense weight that the factors stand for, in the original layer's shape."""
        factors = [self.factor_values(k) for k in range(len(self.structure.factors))]
        groups = [FactorizedTensor(self.structure, values).reconstruct() for values in zip(*factors, strict=True)]
        return joined_weight(groups, transposed=self.geometry.transposed)

    @property
    def weight(self) -> Tensor:
        """The result of `reconstruct`, for a model's code that looks at a weight's type, device or shape."""
        return self.reconstruct()

    def _kernel(self) -> Tensor:
        """Return the result of `reconstruct`, in the factors' own precision even where PyTorch mixes precisions."""
        with torch.autocast(self.weights[0].device.type, enabled=False):
            return self.reconstruct()

    def extra_repr(self) -> str:
        """Show the structure."""
        return str(self.structure)


def _stored(values: Tensor, step: Step) -> Tensor:
    """Return a factor's values in the layout that its step convolves with."""
    return _mirrored(values, step).permute(step.weight_order).reshape(step.weight_shape).contiguous().clone()


def _mirrored(values: Tensor, step: Step) -> Tensor:
    """Reverse the taps of a factor where its step convolves with them in reverse."""
    dims = len(step.taps.kernel)
    return values.flip([*range(values.ndim - dims, values.ndim)]) if step.taps.kind == "mirrored" else values


class FactorizedLinear(_Factorized):
    """A linear layer that computes with factors: ``(*, C)`` to ``(*, F)``."""

    def __init__(self, structure: Structure, factors: Sequence[Tensor], bias: Tensor | None) -> None:
        super().__init__(structure, factors, bias, ConvGeometry())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(*, C)``."""
        if self.rebuilds:
            return F.linear(x, self._kernel(), self.bias)
        return _run(self._prepared(x), list(self.weights), self.bias, self.plan, 0).reshape(*x.shape[:-1], -1)

    def _prepared(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[-1])


class FactorizedConv(_Factorized):
    """A convolution, or a transposed one, over 1, 2 or 3 spatial axes that computes with factors.

    Args:
        structure: Of one group's weight, ``(F / groups, C / groups, *kernel)``.
        factors: One tensor per factor, of shape ``(groups, *structure.value_shape(k))``.
        bias: Of shape ``(F,)``, or ``None``.
        geometry: Stride, zero padding, dilation, groups; whether transposed.
        explicit_padding: For ``F.pad``, applied before the factors where it is asymmetric or not zeros; else empty.
        padding_mode: PyTorch's name for the kind of padding.
    """

    def __init__(
        self,
        structure: Structure,
        factors: Sequence[Tensor],
        bias: Tensor | None,
        *,
        geometry: ConvGeometry,
        explicit_padding: tuple[int, ...] = (),
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__(structure, factors, bias, geometry)
        self.explicit_padding = explicit_padding
        self.padding_mode = padding_mode

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(batch, C, *spatial)``, or to one sample without the batch axis."""
        dims = self.geometry.spatial_axes
        if x.ndim == dims + 1:
            sample: Tensor = self.forward(x[None])[0]
            return sample
        state = self._prepared(x)
        if self.rebuilds:
            return self._convolved(state)
        return _run(state, list(self.weights), self.bias, self.plan, dims, self.ones)

    def _convolved(self, x: Tensor) -> Tensor:
        """Convolve with the kernel that the factors stand for."""
        own = self.geometry
        if own.transposed:
            spread: Tensor = _CONV_TRANSPOSE[own.spatial_axes](
                x, self._kernel(), self.bias, own.stride, own.padding, own.output_padding, own.groups, own.dilation
            )
            return spread
        gathered: Tensor = _CONV[own.spatial_axes](
            x, self._kernel(), self.bias, own.stride, own.padding, own.dilation, own.groups
        )
        return gathered

    def _prepared(self, x: Tensor) -> Tensor:
        if not self.explicit_padding:
            return x
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, self.explicit_padding, mode=mode)


def factorize_layer(layer: nn.Module, factorized: Sequence[FactorizedTensor]) -> FactorizedConv | FactorizedLinear:
    """Return a layer that computes what ``layer`` computes, with factors for its weight.

    Args:
        layer: ``nn.Linear``, ``nn.Conv1d/2d/3d`` or ``nn.ConvTranspose1d/2d/3d``; not modified.
        factorized: One for each of the layer's groups, all of one structure.

    Raises:
        UnsupportedLayerError: If the layer is of another class, or the groups do not match.
    """
    structure = factorized[0].structure
    factors = [torch.stack(values) for values in zip(*(one.values for one in factorized), strict=True)]
    if isinstance(layer, nn.Linear):
        new: FactorizedConv | FactorizedLinear = FactorizedLinear(structure, factors, layer.bias)
    elif isinstance(layer, Convolution | TransposedConvolution):
        if len(factorized) != layer.groups:
            raise UnsupportedLayerError(
                f"a layer of {layer.groups} groups needs {layer.groups} factorizations, got {len(factorized)}"
            )
        geometry, explicit = layer_geometry(layer)
        new = FactorizedConv(
            structure,
            factors,
            layer.bias,
            geometry=geometry,
            explicit_padding=explicit,
            padding_mode=layer.padding_mode,
        )
    else:
        raise UnsupportedLayerError(
            f"{type(layer).__name__} cannot be factorized; Linear, Conv1d/2d/3d and ConvTranspose1d/2d/3d can"
        )
    return new.train(layer.training)
