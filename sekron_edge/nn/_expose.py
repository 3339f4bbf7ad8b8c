"""A copy of a model in which weights that are used outside of layers are layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import nn

from sekron_edge import pytrees
from sekron_edge.nn._admission import exportable
from sekron_edge.nn._copies import with_weights_computed
from sekron_edge.nn._exposures import Change, attentions, functional_weights, recurrences
from sekron_edge.nn._outputs import exportable_inputs, outputs_for

# A change that is exact leaves rounding only.
_SAME = {"rtol": 1e-3, "atol": 1e-4}


def expose_layers(model: nn.Module, inputs: pytrees.Inputs) -> nn.Module:
    """Return a copy of a model that computes the same, with layers in the place of what hides weights.

    * Parametrizations, ``weight_norm`` and ``spectral_norm`` are computed once.
    * ``nn.MultiheadAttention`` gets linear layers as its projections; ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` of up to
      256 steps linear layers as their matrices.
    * A module that is one convolution or linear layer in the exported graph becomes that layer, whatever its class; a
      parameter that is handed to ``F.linear`` or ``F.conv2d`` becomes a `FunctionalWeight` with a layer.
    * Weights of other precisions become float32; what ``torch.compile`` and DataParallel put around modules is off.

    A change is made only where the model's outputs stay the same; what stays hidden has its reason in the plan.

    Args:
        model: Left untouched.
        inputs: Example inputs, as `pytrees.arguments` takes them.

    Raises:
        ConfigError: If the model is none that can be changed and exported, does not take the inputs, or gives no
            tensors.
        ExportError: If torch.export cannot trace the model.
    """
    exposed = with_weights_computed(exportable(model))
    given = exportable_inputs(inputs, exposed)
    expected = outputs_for(exposed, given)
    for changes in (attentions, recurrences, functional_weights):
        exposed = _changed(exposed, given, expected, changes)
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
        found = outputs_for(model, inputs)
    except Exception:  # noqa: BLE001  the model's own code may do anything with what it finds in a parameter's place
        return False
    pairs = zip(pytrees.tensors(found), pytrees.tensors(expected), strict=True)
    return all(torch.allclose(got, wanted, equal_nan=True, **_SAME) for got, wanted in pairs)
