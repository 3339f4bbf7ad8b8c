"""Copies of a user's model: with its weights as values, and in float32, on the CPU."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from sekron_edge.nn._modes import evaluation_mode


def with_weights_computed(model: nn.Module) -> nn.Module:
    """Return a copy whose weights are values: what parametrizations and norms of weights compute is computed once."""
    own = copied(model)
    _compute_once(own)
    return own


def in_single(model: nn.Module) -> nn.Module:
    """Return a model with its weights in float32: itself where they are, else a copy.

    A model whose weights get their shapes at the first run is copied as well: it is left as it was.
    """
    values = [*model.parameters(), *model.buffers()]
    return model if all(map(_is_in_single, values)) else copied(model).float()


def on_cpu(model: nn.Module) -> nn.Module:
    """Return a model with its weights on the CPU: itself where they are, else a copy."""
    values = [*model.parameters(), *model.buffers()]
    return model if all(value.device.type == "cpu" for value in values) else copied(model).cpu()


def _is_in_single(value: Tensor) -> bool:
    return not nn.parameter.is_lazy(value) and (value.dtype == torch.float32 or not value.is_floating_point())


def copied(model: nn.Module) -> nn.Module:
    """Copy a model, with what PyTorch does not copy.

    Weights that hooks computed become plain values; buffers without a shape get it at the copy's first run.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    shapeless = {
        id(buffer): nn.UninitializedBuffer(device=buffer.device, dtype=buffer.dtype)  # type: ignore[call-arg]
        for buffer in model.buffers()
        if isinstance(buffer, nn.UninitializedBuffer)
    }
    own: nn.Module = copy.deepcopy(model, {**computed, **shapeless})
    return own


def _compute_once(model: nn.Module) -> None:
    """Replace what is computed from parametrizations and by hooks by its value, in place."""
    with torch.no_grad(), evaluation_mode(model):
        for module in list(model.modules()):
            if parametrize.is_parametrized(module):
                _drop_parametrizations(module)
            for hook in list(module._forward_pre_hooks.values()):
                if isinstance(hook, WeightNorm):
                    remove_weight_norm(module, hook.name)
                elif isinstance(hook, SpectralNorm):
                    remove_spectral_norm(module, hook.name)


def _drop_parametrizations(module: nn.Module) -> None:
    """Keep what a module's parametrizations compute as its parameters.

    ``remove_parametrizations`` takes the computed attribute from the class, which the module that was copied shares.
    """
    values = {name: getattr(module, name).detach().clone() for name in module.parametrizations}  # type: ignore[union-attr]
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))
