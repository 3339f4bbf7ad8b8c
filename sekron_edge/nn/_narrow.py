"""Narrower layers: inner channels are left out, and what read them is solved again for those that stay."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.errors import ConfigError
from sekron_edge.nn._inner_channels import InnerChannels, inner_channels
from sekron_edge.nn._moments import input_moments
from sekron_edge.tensor import Reader, Removal, removal, solved_again


def narrowed(model: nn.Module, channels: InnerChannels, kept: Sequence[int]) -> nn.Module:
    """Return a copy of a model that has some of its inner channels only, with the weights that it had.

    It computes what the model computes with zeros for the channels that are gone wherever they are read.

    Args:
        model: Left as it was.
        channels: Of this model.
        kept: Channels that stay, in order; at least one.

    Raises:
        ConfigError: If there is no such channel, one is named twice, or none is.
    """
    if not kept or len(set(kept)) < len(kept) or not all(0 <= one < channels.channels for one in kept):
        raise ConfigError(f"{channels.name}: it has channels 0 to {channels.channels - 1}, got {list(kept)}")
    small = copy.deepcopy(model)
    index = torch.tensor(kept)
    for name in channels.producers:
        _cut_outputs_(small.get_submodule(name), index)
    for name in channels.between:
        _cut_between_(small.get_submodule(name), index)
    for name, places in channels.consumers.items():
        _cut_inputs_(small.get_submodule(name), index, places)
    return small


def removal_of(
    model: nn.Module, channels: InnerChannels, calibration: pytrees.Inputs, *, at_once: int | None = None
) -> tuple[Removal, dict[str, Reader]]:
    """Return the order in which channels are left out at the least cost, and the layers that read them.

    Args:
        model: Left as it was.
        channels: Of this model.
        calibration: Real inputs, batched; never held-out data.
        at_once: Samples that run through the model at once; by default all.
    """
    layers = {name: model.get_submodule(name) for name in channels.consumers}
    moments = input_moments(model, calibration, layers, at_once=at_once)
    readers = {
        name: Reader(_matrix(layers[name], channels, name), moments[name][0]) for name in layers if name in moments
    }
    if not readers:
        raise ConfigError(f"{channels.name}: what reads its channels is too wide for moments, or did not run")
    return removal(list(readers.values()), channels.channels), readers


def narrow(
    model: nn.Module,
    widths: Mapping[str, int],
    *,
    calibration: pytrees.Inputs,
    example_inputs: pytrees.Inputs,
    at_once: int | None = None,
) -> nn.Module:
    """Return a copy of a model with fewer inner channels; the layers that read them are solved again.

    Which channels stay is decided by what the outputs of the layers that read them lose, after these are solved again
    by least squares on calibration data (greedy, by Schur complements of the moments). No operator is added. Sites are
    narrowed in the order in which they run, each for what the model narrowed so far gives it. Let batch norms be
    estimated again afterwards.

    Args:
        model: Left as it was.
        widths: Number of channels that stay, by the name of the first layer that gives them (`inner_channels`).
        calibration: Real inputs, batched; never held-out data.
        example_inputs: As `pytrees.call` takes them.
        at_once: Samples that run through the model at once; by default all.

    Raises:
        ConfigError: If a name has no inner channels, or as many do not stay.
        ExportError: If torch.export cannot trace the model.
    """
    found = inner_channels(model, example_inputs)
    for name, width in widths.items():
        if name not in found:
            near = ", ".join(difflib.get_close_matches(name, found, n=3, cutoff=0.3) or [*found][:3]) or "no layer"
            raise ConfigError(
                f"{name!r} gives no channels that only a few layers see; there are such after {near} (`inner_channels`)"
            )
        if not 0 < width <= found[name].channels:
            raise ConfigError(f"{name}: a width is 1 to {found[name].channels}, got {width}")
    small = model
    for name, channels in found.items():
        if widths.get(name, channels.channels) == channels.channels:
            continue
        chosen, readers = removal_of(small, channels, calibration, at_once=at_once)
        kept = chosen.kept(widths[name])
        solved = {own: solved_again(reader, kept, channels.channels) for own, reader in readers.items()}
        small = narrowed(small, channels, kept)
        for own, weight in solved.items():
            parameter = small.get_submodule(own).get_parameter("weight")
            parameter.data = weight.reshape(parameter.shape)
    return small


def _matrix(layer: nn.Module, channels: InnerChannels, name: str) -> Tensor:
    """Return the weight of a layer as a map of its channels' values, each channel's side by side."""
    weight = layer.get_parameter("weight").detach()
    matrix = weight.reshape(len(weight), -1)
    wanted = channels.channels * channels.consumers[name] * prod(getattr(layer, "kernel_size", ()))
    assert matrix.shape[1] == wanted
    return matrix


def _cut_outputs_(layer: nn.Module, index: Tensor) -> None:
    layer.weight = _cut(layer.get_parameter("weight"), 0, index)
    if layer.bias is not None:
        layer.bias = _cut(layer.get_parameter("bias"), 0, index)
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(index))


def _cut_inputs_(layer: nn.Module, index: Tensor, places: int) -> None:
    columns = (index[:, None] * places + torch.arange(places)).flatten()
    layer.weight = _cut(layer.get_parameter("weight"), 1, columns)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(columns))


def _cut_between_(layer: nn.Module, index: Tensor) -> None:
    """Cut a depthwise convolution or a batch norm."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _cut(parameter, 0, index))
    for name, buffer in list(layer.named_buffers(recurse=False)):
        if buffer.ndim:
            setattr(layer, name, buffer[index].clone())
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        layer.groups = layer.in_channels = layer.out_channels = len(index)
    else:
        layer.num_features = len(index)  # type: ignore[assignment]


def _cut(parameter: nn.Parameter, axis: int, index: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(axis, index.to(parameter.device)), parameter.requires_grad)
