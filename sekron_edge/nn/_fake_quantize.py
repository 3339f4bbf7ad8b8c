"""A model that rounds as its int8 file does, in floats and with gradients, for quantization-aware training.

Weights are rounded symmetrically by output channel. Inputs of convolutions, linear layers, sums, products, means and
curved activations, and the model's outputs, are rounded by tensor (Jacob et al. 2018, arXiv 1712.05877). ReLU's are
not: the operator before takes it up. Batch norms are not folded: a scale by channel does not change a symmetric
rounding by channel. One that no layer before it takes up is a convolution of its own in the file, and its input is
rounded, too. An average pool gives integers of its input's scale, however small the averages are; one over the whole
image is a mean, with a scale of its own. Gradients pass as if nothing were rounded, except where a value is cut off.

Layers may be kept in float. What a rounded layer or addition gives is integers in the file, so a kept layer that reads
it reads rounded values; what kept layers and inputs give stays as it is until something rounded reads it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from sekron_edge import pytrees
from sekron_edge.errors import ConfigError
from sekron_edge.nn._batch_norm import separate_batch_norms
from sekron_edge.nn._geometry import Convolution, TransposedConvolution
from sekron_edge.nn._integer_operators import (
    VIEWS,
    WEIGHT_AXIS,
    averages,
    has_weight,
    joined,
    passed_on,
    tensors_of,
)
from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear
from sekron_edge.nn._modes import evaluation_mode

_LAYERS = (nn.Linear, *Convolution.__args__, *TransposedConvolution.__args__, FactorizedConv, FactorizedLinear)
# A sigmoid's integers have this scale, whatever the data: its values are between 0 and 1.
_SIGMOID = (0.0, 255 / 256)
_WEIGHT_STEPS = 127
_LOWEST, _HIGHEST = -128, 127
_LEAST_SCALE = 1e-12
# Finer than averages of a few integers differ, and coarser than floats err.
_PARTS = 2048
# Ranges follow the weights slowly: a batch moves them by a hundredth of its difference.
_MOMENTUM = 0.01


class FakeQuantized(nn.Module):
    """Runs ``model`` and rounds everything that an int8 file rounds.

    Ranges are the largest seen on the calibration data, as exporters take them; in training mode they follow the
    batches.

    Args:
        model: Held, not copied. What it rounds must run in the same order every time.
        calibration: Batches of real inputs, never held-out data.
        keep_float: Names of the layers that stay in float.
    """

    def __init__(self, model: nn.Module, calibration: Iterable[pytrees.Inputs], keep_float: Iterable[str] = ()) -> None:
        super().__init__()
        self.model = model
        observing = _Observing()
        separate = [model.get_submodule(name) for name in separate_batch_norms(model)]
        with evaluation_mode(model), torch.no_grad(), _layers_told(model, observing, separate):
            for batch in calibration:
                observing.begin()
                with observing:
                    outputs = pytrees.call(model, batch)
                for value in filter(torch.is_floating_point, pytrees.tensors(outputs)):
                    observing.see(value)
        self.ranges: Tensor
        self.register_buffer("ranges", torch.tensor(observing.ranges))
        self._layer_of = tuple(observing.layers)
        self.separate_norms = tuple(observing.separate_norms)
        self._range_of = tuple(observing.range_of)
        self._makers = tuple(observing.makers)
        self._kept: frozenset[str | None] = frozenset(keep_float)
        self._unseen: frozenset[str | None] = frozenset()

    def forward(self, *args: Any, **kwargs: Any) -> pytrees.Outputs:
        """Run the model with rounding."""
        rounding = _Rounding(self)
        with rounding:
            outputs = self.model(*args, **kwargs)
        return pytrees.map_tensors(lambda out: rounding.output(out) if out.is_floating_point() else out, outputs)

    @contextmanager
    def without(self, layers: Iterable[str | None]) -> Iterator[None]:
        """Keep some layers in float within the block, and no others; None stands for additions and outputs."""
        before, self._kept = self._kept, frozenset(layers)
        try:
            yield
        finally:
            self._kept = before

    @contextmanager
    def only(self, layers: Iterable[str]) -> Iterator[None]:
        """Round only what some layers read, and their weights, within the block: the noise that is theirs."""
        self._unseen = frozenset({*self._layer_of} - {*layers})
        try:
            yield
        finally:
            self._unseen = frozenset()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are rounded, in the order in which they run."""
        return tuple(dict.fromkeys(name for name in self._layer_of if name is not None))

    def makers(self, layer: str) -> frozenset[str | None]:
        """Return the layers whose values a layer reads; None stands for additions.

        Where they are rounded, keeping the layer alone in float leaves it with values that are rounded already.
        """
        read = (makers for own, makers in zip(self._layer_of, self._makers, strict=True) if own == layer)
        return frozenset[str | None]().union(*read) - {layer}

    @property
    def keeps_any(self) -> bool:
        """Whether any layer is kept in float now."""
        return bool(self._kept)

    def keeps(self, place: int) -> bool:
        """Say whether the layer at a place is kept in float now."""
        return self._layer_of[place] in self._kept

    def rounded_value(self, place: int, value: Tensor, *, of_integers: bool) -> Tensor:
        """Return what is read at a place; ``of_integers`` says that the file computes it of integers alone."""
        layer = self._layer_of[place]
        if layer in self._unseen or (layer in self._kept and not (of_integers and layer is not None)):
            return value
        if self.training and self._range_of[place] == place:
            low, high = value.detach().aminmax()
            self.ranges[place].lerp_(torch.stack((low, high)), _MOMENTUM)
        return _round_values(value, self.ranges[self._range_of[place]])

    def rounded_again(self, place: int, value: Tensor) -> Tensor:
        """Return what an operator gives in integers of the scale of what it read at a place."""
        silent = {*self._unseen, *self._kept}
        if self._layer_of[place] in silent:
            return value
        return _round_averages(value, self.ranges[self._range_of[place]])

    def swish(self, place: int, value: Tensor) -> Tensor:
        """Return the product of a value and its sigmoid, which is rounded where what was read at the place is."""
        sigmoid = torch.sigmoid(value)
        if self._layer_of[place] not in {*self._unseen, *self._kept}:
            sigmoid = _round_values(sigmoid, sigmoid.new_tensor(_SIGMOID))
        return value * sigmoid

    def rounded_weight(self, place: int, weight: Tensor, axis: int) -> Tensor:
        """Return the weight that the values at a place meet."""
        layer = self._layer_of[place]
        return weight if layer in self._unseen or layer in self._kept else _round_weight(weight, axis)


def require_rounded(names: Sequence[str], model: nn.Module, inputs: pytrees.Inputs) -> None:
    """Refuse names of layers to keep in float that are no layers of a model, or none that are rounded, or all of them.

    Args:
        names: Of layers.
        model: Run once; left as it was.
        inputs: In the form of `sekron_edge.pytrees.call`.

    Raises:
        ConfigError: Names the first such name, why it is none, and those that are near.
    """
    if not names:
        return
    rounded, there = FakeQuantized(model, [inputs]).layers, {name for name, _ in model.named_modules()}
    for name in names:
        if name not in rounded:
            near = ", ".join(difflib.get_close_matches(name, rounded, n=3, cutoff=0.3) or rounded[:3])
            said = f"{name!r} is not rounded" if name in there else f"no layer is named {name!r}"
            raise ConfigError(
                f"keep_float: {said}; convolutions and linear layers that run are rounded, as {near or 'none here'}"
            )
    if set(names) == set(rounded):
        raise ConfigError(f"keep_float: all {len(rounded)} layers are named, and int8 would round none; deliver fp32")


def _grid(limits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point of a range."""
    low, high = limits[0].clamp_max(0), limits[1].clamp_min(0)
    scale = ((high - low) / (_HIGHEST - _LOWEST)).clamp_min(_LEAST_SCALE)
    return scale, (_LOWEST - torch.round(low / scale)).to(torch.int32)


def _round_values(value: Tensor, limits: Tensor) -> Tensor:
    scale, zero = _grid(limits)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, _LOWEST, _HIGHEST)


def _round_averages(value: Tensor, limits: Tensor) -> Tensor:
    """Round averages of integers, of which many are halves: LiteRT rounds those away from zero, not to even ones."""
    scale, zero = _grid(limits)
    with torch.no_grad():
        integers = torch.round((value / scale + zero) * _PARTS) / _PARTS
        nearest = integers.sign() * (integers.abs() + 0.5).floor()
        rounded = (nearest.clamp(_LOWEST, _HIGHEST) - zero) * scale
    return value + (rounded - value).detach()


def _round_weight(weight: Tensor, axis: int) -> Tensor:
    others = [other for other in range(weight.ndim) if other != axis]
    scale = (weight.detach().abs().amax(others) / _WEIGHT_STEPS).clamp_min(_LEAST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, -_WEIGHT_STEPS, _WEIGHT_STEPS)


class _Rounding(TorchFunctionMode):
    """Counts the places at which values are rounded, and rounds each value and the weight that it meets."""

    def __init__(self, owner: FakeQuantized) -> None:
        super().__init__()
        self._owner = owner
        self._place = 0
        self._norms = 0
        # Followed only where some layer is kept in float: elsewhere everything is rounded, whatever made it.
        self._of_integers: WeakTensorKeyDictionary | None = WeakTensorKeyDictionary() if owner.keeps_any else None

    def value(self, value: Tensor) -> Tensor:
        """Round what is read at the next place."""
        rounded = self._owner.rounded_value(self._place, value, of_integers=self._is_of_integers(value))
        self._place += 1
        return rounded

    def output(self, value: Tensor) -> Tensor:
        """Round what the model gives; what layers in float give stays in float."""
        in_float = self._of_integers is not None and not self._is_of_integers(value)
        rounded = self.value(value)
        return value if in_float else rounded

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        place, passed = self._place, passed_on(func, args)
        integers = any(map(self._is_of_integers, tensors_of((*args, *(kwargs or {}).values()))))
        if passed and self._of_integers is not None and not integers:
            self._place += passed
            return func(*args, **(kwargs or {}))
        if has_weight(func, args):
            weight = self._owner.rounded_weight(place, args[1], WEIGHT_AXIS[func])
            args = (self.value(args[0]), weight, *args[2:])
        elif func is torch.batch_norm:
            if self._owner.separate_norms[self._norms]:
                args = (self.value(args[0]), *args[1:])
            self._norms += 1
        else:
            read = passed or joined(func, args)
            args = (*[self.value(value) for value in args[:read]], *args[read:])
        swish = func is F.silu
        found = self._owner.swish(place, args[0]) if swish else func(*args, **(kwargs or {}))
        if averages(func, args):
            found = self._owner.rounded_again(place, found)
        if self._of_integers is not None:
            if self._place > place and not passed:
                integers = not self._owner.keeps(place)
            if integers:
                self._of_integers.update(dict.fromkeys(tensors_of((found,)), True))
        return found

    def _is_of_integers(self, value: Tensor) -> bool:
        return self._of_integers is not None and value in self._of_integers


class _Observing(TorchFunctionMode):
    """Records the range of the values at each place, the layer that the place is in, and those that made the values."""

    def __init__(self) -> None:
        super().__init__()
        self.place = 0
        self.layer: str | None = None
        self.in_separate_norm = False
        self.separate_norms: list[bool] = []
        self.layers: list[str | None] = []
        self.makers: list[frozenset[str | None]] = []
        self.ranges: list[tuple[float, float]] = []
        self.range_of: list[int] = []
        self._made_by = WeakTensorKeyDictionary()
        self._averaged_at = WeakTensorKeyDictionary()

    def begin(self) -> None:
        """Begin with the first place again."""
        self.place = 0
        self.separate_norms = []

    def see(self, value: Tensor) -> None:
        low, high = map(float, value.aminmax())
        if self.place == len(self.ranges):
            self.ranges.append((low, high))
            self.layers.append(self.layer)
            self.makers.append(self._made_by.get(value, frozenset()))
            self.range_of.append(self._averaged_at.get(value, self.place))
        before = self.ranges[self.place]
        self.ranges[self.place] = (min(before[0], low), max(before[1], high))
        self.place += 1

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        place, passed = self.place, passed_on(func, args)
        if func is torch.batch_norm:
            self.separate_norms.append(self.in_separate_norm)
            if self.in_separate_norm:
                self.see(args[0])
        else:
            for value in args[: 1 if has_weight(func, args) else passed or joined(func, args)]:
                self.see(value)
        found = func(*args, **(kwargs or {}))
        if averages(func, args):
            self._averaged_at[found] = self.range_of[place]
        elif func in VIEWS and args[0] in self._averaged_at:
            self._averaged_at[found] = self._averaged_at[args[0]]
        if self.place > place and not passed:
            makers: frozenset[str | None] = frozenset((self.layer,))
        else:
            read = tensors_of((*args, *(kwargs or {}).values()))
            makers = frozenset[str | None]().union(*(self._made_by.get(value, ()) for value in read))
        if makers:
            self._made_by.update(dict.fromkeys(tensors_of((found,)), makers))
        return found


@contextmanager
def _layers_told(model: nn.Module, observing: _Observing, separate: Sequence[nn.Module]) -> Iterator[None]:
    """Tell an observer the name of the layer that runs, and whether it is a batch norm that stands by itself."""

    def enter(name: str) -> Callable[..., None]:
        def told(*_: Any) -> None:
            observing.layer = name

        return told

    def leave(*_: Any) -> None:
        observing.layer = None

    def norm(*, runs: bool) -> Callable[..., None]:
        def told(*_: Any) -> None:
            observing.in_separate_norm = runs

        return told

    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, _LAYERS)]
    hooks = [module.register_forward_pre_hook(enter(name)) for name, module in layers]
    hooks += [module.register_forward_hook(leave) for _, module in layers]
    hooks += [module.register_forward_pre_hook(norm(runs=True)) for module in separate]
    hooks += [module.register_forward_hook(norm(runs=False)) for module in separate]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
