"""Models by reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sekron_edge import references
from sekron_edge.errors import ConfigError
from sekron_edge.files import fingerprint
from sekron_edge.pipeline._checkpoints import load_weights


def load_model(
    reference: str,
    weights: Path | None = None,
    *,
    args: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
) -> nn.Module:
    """Make a model, in evaluation mode.

    Args:
        reference: ``package.module:factory`` or ``path/to/file.py:factory``: a function or a class.
        weights: A checkpoint, as `load_weights` takes it.
        args: Keyword arguments of the factory.
        weights_key: Of `load_weights`.

    Raises:
        ConfigError: If there is no such module or factory, it does not take the arguments, its result is not a module,
            or the weights do not fit.
    """
    factory = references.load(reference, "a model")
    _require_arguments(factory, reference, args or {})
    with references.errors_in(reference, "making the model"):
        made = factory(**(args or {}))
    model = required_module(made, reference)
    if weights is not None:
        load_weights(model, weights, key=weights_key)
    return model.eval()


def required_module(model: object, what: str) -> nn.Module:
    """Return a model, if it can be changed and exported.

    Raises:
        ConfigError: If it is not a ``torch.nn.Module``, or a TorchScript module.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ConfigError(
            f"{what} gives a TorchScript module ({type(model).__name__}), whose layers cannot be changed: give the "
            "torch.nn.Module that it was scripted or traced from"
        )
    if isinstance(model, torch.export.ExportedProgram):
        raise ConfigError(f"{what} gives an ExportedProgram: give the torch.nn.Module that it was exported from")
    if isinstance(model, Mapping):
        raise ConfigError(
            f"{what} gives a {type(model).__name__}, as a state dict is: give a torch.nn.Module, and the state dict's "
            "file as its weights"
        )
    if isinstance(model, type) or not isinstance(model, nn.Module):
        raise ConfigError(f"{what} must give a torch.nn.Module; it gave {type(model).__name__}")
    return model


def _require_arguments(factory: object, reference: str, args: Mapping[str, Any]) -> None:
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ConfigError(
            f"{reference} is a {type(factory).__name__}, not a factory: name a function or a class that makes the model"
        )
    signature = _signature(factory)
    try:
        if signature is not None:
            signature.bind(**args)
    except TypeError as error:
        raise ConfigError(
            f"{reference} takes {signature}, and model.args gives {', '.join(args) or 'nothing'}: {error}"
        ) from error


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # of a builtin
        return None


def state_fingerprint(model: nn.Module) -> str:
    """Hash a model's class and all its parameters and buffers."""
    state = model.state_dict()
    parts: list[object] = [type(model).__qualname__]
    for name, value in state.items():
        # NumPy has no bfloat16.
        known = value.view(torch.int16) if value.dtype == torch.bfloat16 else value
        parts += [name, tuple(value.shape), known.detach().cpu().contiguous().numpy().tobytes()]
    return fingerprint(*parts)
