"""A copy of a model in which weights that are used outside of layers are layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm

from sekron_edge import pytrees
from sekron_edge.nn._exposures import Change, attentions, functional_weights, outputs_of, recurrences
from sekron_edge.nn._flat import outputs_for
from sekron_edge.nn._modes import evaluation_mode

# A change that is exact leaves rounding only.
_SAME = {"rtol": 1e-3, "atol": 1e-4}


def expose_layers(model: nn.Module, inputs: pytrees.Inputs) -> nn.Module:
    """Return a copy of a model that computes the same, with layers in the place of what hides weights.

    * Parametrizations, ``weight_norm`` and ``spectral_norm`` are computed once.
    * ``nn.MultiheadAttention`` gets linear layers as its projections; ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` of up to
      256 steps linear layers as their matrices.
    * A module that is one convolution or linear layer in the exported graph becomes that layer, whatever its class; a
      parameter that is handed to ``F.linear`` or ``F.conv2d`` becomes a `FunctionalWeight` with a layer.
    * Weights of other precisions become float32.

    A change is made only where the model's outputs stay the same; what stays hidden has its reason in the plan.

    Args:
        model: Left untouched.
        inputs: Example inputs, as `pytrees.arguments` takes them.

    Raises:
        ConfigError: If the model does not take the inputs, or gives no tensors.
        ExportError: If torch.export cannot trace the model.
    """
    exposed = _in_single(with_weights_computed(model))
    outputs_for(exposed, pytrees.in_single(inputs))  # says what is wrong with the inputs
    expected = outputs_of(exposed, inputs)
    for changes in (attentions, recurrences, functional_weights):
        exposed = _changed(exposed, inputs, expected, changes)
    return exposed


def _changed(
    model: nn.Module,
    inputs: pytrees.Inputs,
    expected: pytrees.Outputs,
    changes_of: Callable[[nn.Module, pytrees.Inputs], Iterator[Change]],
) -> nn.Module:
    """Make all changes that leave the outputs as they are: together, or one by one where that fails."""
    changes = list(changes_of(model, inputs))
    if not changes:
        return model
    together = copy.deepcopy(model)
    for change in changes:
        change.apply(together)
    if _is_same(together, inputs, expected):
        return together
    for change in changes:
        tried = copy.deepcopy(model)
        change.apply(tried)
        if _is_same(tried, inputs, expected):
            model = tried
    return model


def _is_same(model: nn.Module, inputs: pytrees.Inputs, expected: pytrees.Outputs) -> bool:
    try:
        found = outputs_of(model, inputs)
    except Exception:  # noqa: BLE001  the model's own code may do anything with what it finds in a parameter's place
        return False
    pairs = zip(pytrees.tensors(found), pytrees.tensors(expected), strict=True)
    return all(torch.allclose(got, wanted, equal_nan=True, **_SAME) for got, wanted in pairs)


def with_weights_computed(model: nn.Module) -> nn.Module:
    """Return a copy whose weights are values: what parametrizations and norms of weights compute is computed once."""
    copied = _copied(model)
    _compute_once(copied)
    return copied


def _copied(model: nn.Module) -> nn.Module:
    """Copy a model; weights that hooks computed, which PyTorch does not copy, become plain values."""
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    copied: nn.Module = copy.deepcopy(model, computed)
    return copied


def _in_single(model: nn.Module) -> nn.Module:
    """Convert weights of other precisions to float32, in place."""
    values = [*model.parameters(), *model.buffers()]
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in values):
        model.float()
    return model


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
