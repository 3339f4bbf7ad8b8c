"""A model that rounds as its int8 file does, in floats and with gradients, for quantization-aware training.

Weights are rounded symmetrically by output channel. Inputs of convolutions, linear layers and additions, and the
model's outputs, are rounded by tensor (Jacob et al. 2018, arXiv 1712.05877). Batch norms are not folded: a scale by
channel does not change a symmetric rounding by channel. Gradients pass as if nothing were rounded, except where a value
is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sekron_edge import pytrees
from sekron_edge.nn._geometry import Convolution, TransposedConvolution
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear
from sekron_edge.nn._modes import evaluation_mode

_LAYERS = (nn.Linear, *Convolution.__args__, *TransposedConvolution.__args__, FactorizedConv, FactorizedLinear)
# The axis of the weight that has the output channels.
_WEIGHT_AXIS: dict[Any, int] = {
    F.linear: 0, F.conv1d: 0, F.conv2d: 0, F.conv3d: 0,
    F.conv_transpose1d: 1, F.conv_transpose2d: 1, F.conv_transpose3d: 1,
}  # fmt: skip
_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__iadd__)
_WEIGHT_STEPS = 127
_LOWEST, _HIGHEST = -128, 127
_LEAST_SCALE = 1e-12
# Ranges follow the weights slowly: a batch moves them by a hundredth of its difference.
_MOMENTUM = 0.01


class FakeQuantized(nn.Module):
    """Runs ``model`` and rounds everything that an int8 file rounds.

    Ranges are the largest seen on the calibration data, as exporters take them; in training mode they follow the
    batches.

    Args:
        model: Held, not copied. Its convolutions, linear layers and additions must run in the same order every time.
        calibration: Batches of real inputs, never held-out data.
    """

    def __init__(self, model: nn.Module, calibration: Iterable[pytrees.Inputs]) -> None:
        super().__init__()
        self.model = model
        observing = _Observing()
        with evaluation_mode(model), torch.no_grad(), _layers_told(model, observing):
            for batch in calibration:
                observing.place = 0
                with observing:
                    outputs = pytrees.call(model, batch)
                for value in filter(torch.is_floating_point, pytrees.tensors(outputs)):
                    observing.see(value)
        self.ranges: Tensor
        self.register_buffer("ranges", torch.tensor(observing.ranges))
        self._layer_of = tuple(observing.layers)
        self._exact: frozenset[str | None] = frozenset()

    def forward(self, *args: Any, **kwargs: Any) -> pytrees.Outputs:
        """Run the model with rounding."""
        rounding = _Rounding(self._rounded_value, self._rounded_weight)
        with rounding:
            outputs = self.model(*args, **kwargs)
        return pytrees.map_tensors(lambda out: rounding.value(out) if out.is_floating_point() else out, outputs)

    @contextmanager
    def without(self, layers: Iterable[str | None]) -> Iterator[None]:
        """Leave the weights and the inputs of some layers unrounded within the block."""
        self._exact = frozenset(layers)
        try:
            yield
        finally:
            self._exact = frozenset()

    def only(self, layers: Iterable[str]) -> AbstractContextManager[None]:
        """Round only some layers within the block."""
        return self.without({*self._layer_of} - {*layers})

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are rounded, in the order in which they run."""
        return tuple(dict.fromkeys(name for name in self._layer_of if name is not None))

    def _rounded_value(self, place: int, value: Tensor) -> Tensor:
        if self._layer_of[place] in self._exact:
            return value
        if self.training:
            low, high = value.detach().aminmax()
            self.ranges[place].lerp_(torch.stack((low, high)), _MOMENTUM)
        return _round_values(value, self.ranges[place])

    def _rounded_weight(self, place: int, weight: Tensor, axis: int) -> Tensor:
        return weight if self._layer_of[place] in self._exact else _round_weight(weight, axis)


def _round_values(value: Tensor, limits: Tensor) -> Tensor:
    low, high = limits[0].clamp_max(0), limits[1].clamp_min(0)
    scale = ((high - low) / (_HIGHEST - _LOWEST)).clamp_min(_LEAST_SCALE)
    zero = (_LOWEST - torch.round(low / scale)).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, _LOWEST, _HIGHEST)


def _round_weight(weight: Tensor, axis: int) -> Tensor:
    others = [other for other in range(weight.ndim) if other != axis]
    scale = (weight.detach().abs().amax(others) / _WEIGHT_STEPS).clamp_min(_LEAST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -_WEIGHT_STEPS, _WEIGHT_STEPS)


class _Rounding(TorchFunctionMode):
    """Counts the places at which values are rounded, and rounds each value and the weight that it meets."""

    def __init__(self, value: Callable[[int, Tensor], Tensor], weight: Callable[[int, Tensor, int], Tensor]) -> None:
        super().__init__()
        self._value, self._weight = value, weight
        self._place = 0

    def value(self, value: Tensor) -> Tensor:
        rounded = self._value(self._place, value)
        self._place += 1
        return rounded

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func in _WEIGHT_AXIS and len(args) > 1 and isinstance(args[1], Tensor):
            weight = self._weight(self._place, args[1], _WEIGHT_AXIS[func])
            args = (self.value(args[0]), weight, *args[2:])
        elif _joins(func, args):
            args = (*map(self.value, args[:2]), *args[2:])
        return func(*args, **(kwargs or {}))


class _Observing(TorchFunctionMode):
    """Records the range of the values at each place, and the layer that the place is in."""

    def __init__(self) -> None:
        super().__init__()
        self.place = 0
        self.layer: str | None = None
        self.layers: list[str | None] = []
        self.ranges: list[tuple[float, float]] = []

    def see(self, value: Tensor) -> None:
        low, high = map(float, value.aminmax())
        if self.place == len(self.ranges):
            self.ranges.append((low, high))
            self.layers.append(self.layer)
        before = self.ranges[self.place]
        self.ranges[self.place] = (min(before[0], low), max(before[1], high))
        self.place += 1

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if func in _WEIGHT_AXIS and len(args) > 1 and isinstance(args[1], Tensor):
            self.see(args[0])
        elif _joins(func, args):
            for value in args[:2]:
                self.see(value)
        return func(*args, **(kwargs or {}))


def _joins(func: Any, args: Sequence[Any]) -> bool:
    """Say whether a call adds two activations; a bias has another shape."""
    both = func in _ADDITIONS and len(args) > 1 and all(isinstance(value, Tensor) for value in args[:2])
    return both and args[0].shape == args[1].shape and args[0].is_floating_point() and args[1].is_floating_point()


@contextmanager
def _layers_told(model: nn.Module, observing: _Observing) -> Iterator[None]:
    """Tell an observer the name of the layer that runs."""

    def enter(name: str) -> Callable[..., None]:
        def told(*_: Any) -> None:
            observing.layer = name

        return told

    def leave(*_: Any) -> None:
        observing.layer = None

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _LAYERS)]
    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in layers]
    hooks += [module.register_forward_hook(leave) for _, module in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
