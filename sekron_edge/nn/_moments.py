"""Second moments of layers' inputs: the metric that turns an error of a weight into an error of the output."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, prod
from typing import Any
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.nn._geometry import Convolution, TransposedConvolution, padding_ends
from sekron_edge.nn._modes import evaluation_mode
from sekron_edge.pytrees import Inputs, batch_size, batches, call
from sekron_edge.tensor import SeenMoments, gram_matrix

_CHUNK_VALUES = 16_000_000
# Patches of a convolution for each of a patch's values. Neighbouring patches are nearly alike: ResNet-20's factors that
# are refined for this number are worse on other images by 0.4 %. There is a minimum, because with the 864 patches of a
# layer of 27 inputs an error was 3 % off.
_ROWS_A_VALUE = 32
_FEWEST_ROWS = 16_384
_WIDEST = 8192


def input_moments(
    model: nn.Module, inputs: Inputs, layers: Mapping[str, nn.Module], *, at_once: int | None = None
) -> dict[str, Tensor]:
    """Return ``E[x x^T]`` over the patches that each layer multiplies with its weight.

    With it, the mean squared change of a layer's output is ``tr(dW Sigma dW^T)`` for a change ``dW`` of its weight. In
    large images, patches at some random places stand for all.

    Args:
        model: Run once in evaluation mode; left as it was.
        inputs: Calibration data, batched, in the form of `sekron_edge.pytrees.call`.
        layers: Linear layers, convolutions and transposed convolutions of the model, by name. Those that multiply more
            than 8192 inputs at a time are left out: their moments would not fit in memory.
        at_once: Samples that run through the model at once; by default all.

    Returns:
        ``(groups, C / groups * prod(kernel), same)`` in float64 for each layer that ran.
    """
    total = batch_size(inputs)
    at_once = total if at_once is None else min(at_once, total)
    narrow = {name: layer for name, layer in layers.items() if _width(layer) <= _WIDEST}
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    # Each layer has its own places, so that its moments are the same whatever other layers are asked for.
    places = {name: torch.Generator().manual_seed(crc32(name.encode())) for name in narrow}
    running = at_once

    def note(name: str, layer: nn.Module, x: Tensor) -> None:
        pieces = _pieces(layer, x)
        for piece in pieces:
            # What is no sample each, as the windows of an image, counts as it comes.
            ran = sum(map(len, pieces))
            patches = _patches(layer, piece, ran * total // running if ran >= running else ran, places[name])
            moment = gram_matrix(patches.mT).double()
            sums[name] = sums[name].add_(moment) if name in sums else moment
            counts[name] = counts.get(name, 0) + patches.shape[1]

    hooks = [
        layer.register_forward_pre_hook(lambda module, args, name=name: note(name, module, args[0].detach()))
        for name, layer in narrow.items()
    ]
    try:
        with torch.no_grad(), evaluation_mode(model):
            for piece in batches(inputs, at_once):
                running = batch_size(piece)
                call(model, piece)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.div_(counts[name]) for name, total in sums.items()}


class PairedMoments:
    """Second moments of a layer's inputs in two networks, over patches at the same places.

    Args:
        layer: As for `input_moments`; with more than 8192 inputs its moments would not fit in memory (`fits`).
        samples: Number of samples that will be added.
    """

    def __init__(self, layer: nn.Module, samples: int) -> None:
        self._layer, self._samples = layer, samples
        self._places = torch.Generator().manual_seed(0)
        self._sums: list[Tensor] = []
        self._count = 0

    @staticmethod
    def fits(layer: nn.Module) -> bool:
        """Whether the moments of a layer fit in memory."""
        return _width(layer) <= _WIDEST

    def add(self, original: Tensor, seen: Tensor) -> None:
        """Add a batch of the layer's inputs, in the original network and in the other one."""
        for pair in zip(_pieces(self._layer, original), _pieces(self._layer, seen), strict=True):
            same = self._places.get_state()
            x, xh = (_patches(self._layer, piece, self._samples, self._places.set_state(same)) for piece in pair)
            found = [gram_matrix(x.mT), gram_matrix(xh.mT), x.mT @ xh]
            sums = self._sums or [torch.zeros(()) for _ in found]
            self._sums = [total + moment.double() for total, moment in zip(sums, found, strict=True)]
            self._count += x.shape[1]

    def result(self) -> SeenMoments:
        """Return the moments of all batches; at least one was added."""
        return SeenMoments(*(total / self._count for total in self._sums))


def _width(layer: nn.Module) -> int:
    """Return the number of values that one output of a layer is computed from."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, Convolution | TransposedConvolution)
    return layer.in_channels // layer.groups * prod(layer.kernel_size)


def _pieces(layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Cut a batch so that the patches of a piece fit in memory."""
    if isinstance(layer, nn.Linear):
        return (x,)
    assert isinstance(layer, Convolution | TransposedConvolution)
    if x.ndim == len(layer.stride) + 1:
        x = x[None]
    values = x[0].numel() * prod(layer.kernel_size)
    if isinstance(layer, TransposedConvolution):
        values *= prod(layer.stride)
    return torch.split(x, max(1, _CHUNK_VALUES // max(1, values)))


def _patches(layer: nn.Module, x: Tensor, samples: int, places: torch.Generator) -> Tensor:
    """Return rows that a layer multiplies with its weight: ``(groups, rows, C / groups * prod(kernel))``.

    Args:
        layer: A layer of the three kinds.
        x: Its input, or some samples of it.
        samples: Number of samples in the whole input.
        places: Chooses the places of large images.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    assert isinstance(layer, Convolution | TransposedConvolution)
    dims, stride = len(layer.stride), tuple(layer.stride)
    if isinstance(layer, TransposedConvolution):
        x, stride = _spread(layer, x), (1,) * dims
    else:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, padding_ends(layer), mode=mode)
    for axis in range(dims):
        extent = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
        x = x.unfold(2 + axis, extent, stride[axis])[..., :: layer.dilation[axis]]
    if isinstance(layer, TransposedConvolution):
        x = x.flip([*range(2 + dims, 2 + 2 * dims)])
    size = layer.in_channels // layer.groups * prod(layer.kernel_size)
    spatial = x.shape[2 : 2 + dims]
    enough = ceil(max(_FEWEST_ROWS, _ROWS_A_VALUE * size) / samples)
    if enough < prod(spatial):
        # Each sample has its own places: where few are enough, the same ones would not stand for all.
        chosen = torch.rand(len(x), prod(spatial), generator=places).argsort(dim=1)[:, :enough].to(x.device)
        sample = torch.arange(len(x), device=x.device)[:, None]
        at: tuple[Any, ...] = (sample, slice(None), *torch.unravel_index(chosen, spatial))
        x = x[at]
    else:
        x = x.movedim(1, 1 + dims)
    # (batch, *places, C, *kernel) -> (groups, batch * places, C / groups * kernel)
    x = x.reshape(-1, layer.groups, size)
    return x.movedim(1, 0)


def _spread(layer: TransposedConvolution, x: Tensor) -> Tensor:
    """Return the input of the equivalent convolution, which has its taps in reverse and no stride."""
    spread = x.new_zeros(*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], layer.stride, strict=True)))
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in layer.stride))] = x
    ends: list[int] = []
    for axis in reversed(range(len(layer.stride))):
        cut = layer.padding[axis]
        assert isinstance(cut, int)
        extent = (layer.kernel_size[axis] - 1) * layer.dilation[axis]
        ends += [extent - cut, extent - cut + layer.output_padding[axis]]
    return F.pad(spread, ends)
