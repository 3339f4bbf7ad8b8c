"""Models by reference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sekron_edge import pytrees, references
from sekron_edge.errors import ConfigError
from sekron_edge.files import fingerprint
from sekron_edge.nn import admitted
from sekron_edge.pipeline._checkpoints import load_weights
from sekron_edge.pipeline._progress import LogProgress, Progress


def load_model(
    reference: str,
    weights: Path | None = None,
    *,
    args: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Make a model, in evaluation mode.

    Args:
        reference: ``package.module:factory`` or ``path/to/file.py:factory``: a function or a class.
        weights: A checkpoint, as `load_weights` takes it.
        args: Keyword arguments of the factory.
        weights_key: Of `load_weights`.
        progress: Is told what was taken of a checkpoint; by default the logger ``sekron_edge``.

    Raises:
        ConfigError: If there is no such module or factory, it does not take the arguments, its result is not a module,
            or the weights do not fit.
    """
    factory = references.load(reference, "a model")
    _require_arguments(factory, reference, args or {})
    with references.errors_in(reference, "making the model"):
        made = factory(**(args or {}))
    model = admitted(made, reference)
    if weights is not None:
        taken = load_weights(model, weights, key=weights_key)
        if taken:
            (progress or LogProgress()).say(f"weights {weights}: taken {taken}")
    return model.eval()


def require_numbers(model: nn.Module, outputs: pytrees.Outputs) -> None:
    """Refuse a model that gives NaN.

    Raises:
        ConfigError: If it does; names the weights that hold NaN.
    """
    if not any(value.is_floating_point() and value.isnan().any() for value in pytrees.tensors(outputs)):
        return
    held = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.isnan().any()]
    cause = f"its {', '.join(held[:3])}{', ...' if len(held) > 3 else ''} hold NaN" if held else "its weights hold none"
    raise ConfigError(
        f"{type(model).__name__} gives NaN for the example inputs, and {cause}: "
        f"{'load other weights, or train it again' if held else 'give real inputs'}"
    )


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
