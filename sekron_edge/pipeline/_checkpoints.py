"""Weights from files as they come: plain state dicts, checkpoints that hold one, names with a prefix."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sekron_edge.errors import ConfigError
from sekron_edge.nn import whole_state

_SHOWN = 3
_COUNTER = "num_batches_tracked"


def load_weights(model: nn.Module, path: Path, *, key: str | None = None) -> str:
    """Load weights into a model.

    A checkpoint may hold the state dict under a key (``state_dict``, ``model``, ``ema``, ...), and its names may begin
    with what a wrapper adds (``module.``, ``model.``, ``_orig_mod.``): the one whose names are the model's is taken.

    Args:
        model: Changed in place.
        path: safetensors, or a file of ``torch.save``; only tensors and plain containers are read, never code.
        key: The state dict to take from a checkpoint that holds several that fit.

    Returns:
        What was taken, in words, where the file is not a plain state dict of the model; else nothing.

    Raises:
        ConfigError: If the file cannot be read, holds no state dict that fits, or several.
    """
    own = model.state_dict()
    tried = _state_dicts(_read(path))
    if key is not None:
        if key not in tried:
            raise ConfigError(f"{path} holds no state dict {key!r}; it holds {', '.join(map(repr, tried)) or 'none'}")
        tried = {key: tried[key]}
    if not tried:
        raise ConfigError(f"{path} holds no state dict: save model.state_dict(), with torch.save or safetensors")
    candidates = [
        (where, prefix, whole_state(model, renamed))
        for where, state in tried.items()
        for prefix, renamed in [_without_prefix(state, own)]
    ]
    # Old checkpoints lack what batch norms count; nothing uses it in evaluation.
    uncounted = {name: value for name, value in own.items() if name.endswith(_COUNTER)}
    candidates = [(where, prefix, {**uncounted, **state}) for where, prefix, state in candidates]
    fitting = [each for each in candidates if not _problems(own, each[2])]
    if not fitting:
        where, prefix, state = max(candidates, key=lambda each: len(own.keys() & each[2].keys()))
        problems = "; ".join(_problems(own, state))
        raise ConfigError(f"weights {path}{_said(where, prefix)} are not of this {type(model).__name__}: {problems}")
    if len(fitting) > 1:
        names = ", ".join(repr(where) for where, _, _ in fitting)
        raise ConfigError(f"{path} holds several state dicts that fit, {names}: name one as model.weights_key")
    ((where, prefix, state),) = fitting
    model.load_state_dict(state)
    return _said(where, prefix).strip()


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"weights {path} hold more than tensors (a whole pickled model, or optimizer objects), which could run any "
            "code: save model.state_dict() alone, where the file was made"
        ) from error
    except Exception as error:  # whatever torch makes of a damaged file
        raise ConfigError(
            f"weights {path} cannot be read (safetensors, or a plain torch state dict): {error}"
        ) from error


def _state_dicts(content: Any, where: str = "") -> dict[str, dict[str, Tensor]]:
    """Return all state dicts in a checkpoint by their place: "" for the whole, ``ema.state_dict`` for an inner one."""
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    found = {where: tensors} if tensors else {}
    for name, value in content.items():
        if isinstance(value, Mapping):
            found |= _state_dicts(value, f"{where}.{name}".lstrip("."))
    return found


def _without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """Return the prefix that makes most names the model's once it is cut, and the state dict without it."""
    names = Counter({"": len(own.keys() & state.keys())})
    for name in state:
        parts = name.split(".")
        names.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)) if ".".join(parts[depth:]) in own)
    best = max(sorted(names, key=len), key=names.__getitem__)
    if not best:
        return "", dict(state)
    return best, {name.removeprefix(best): value for name, value in state.items() if name.startswith(best)}


def _problems(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
    return [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in kinds
        if names
    ]


def _said(where: str, prefix: str) -> str:
    taken = f" under {where!r}" if where else ""
    return taken + (f" without the prefix {prefix!r}" if prefix else "")
