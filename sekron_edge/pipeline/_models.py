"""Models by reference, and their weights; never a pickle."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sekron_edge.errors import ConfigError
from sekron_edge.files import fingerprint

_SHOWN = 3


def load_model(reference: str, weights: Path | None = None) -> nn.Module:
    """Make a model, in evaluation mode.

    Args:
        reference: ``package.module:factory`` or ``path/to/file.py:factory``; the factory takes no arguments.
        weights: A state dict: ``.safetensors``, or a file that ``torch.load(weights_only=True)`` reads.

    Raises:
        ConfigError: If there is no such module or factory, its result is not a module, or the weights do not fit.
    """
    model = _factory(reference)()
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{reference} must return a torch.nn.Module, it returned {type(model).__name__}")
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict into a model.

    Raises:
        ConfigError: If the file cannot be read, or its names or shapes are not the model's.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(
            f"weights {path} cannot be read (safetensors, or a plain torch state dict): {error}"
        ) from error
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    problems = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise ConfigError(f"weights {path} are not of this {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(state)


def _factory(reference: str) -> Any:
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise ConfigError(f"a model must be 'package.module:factory' or 'file.py:factory', got {reference!r}")
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise ConfigError(f"there is no file {path} to make a model from")
        spec = importlib.util.spec_from_file_location(f"_sekron_edge_model_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and torch.export look their module up by name.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(where)
        except ModuleNotFoundError as error:
            raise ConfigError(f"no module {where!r} to make a model from: {error}") from error
    if not hasattr(module, name):
        raise ConfigError(f"{where} has no {name!r} to make a model with")
    return getattr(module, name)


def state_fingerprint(model: nn.Module) -> str:
    """Hash a model's class and all its parameters and buffers."""
    state = model.state_dict()
    parts: list[object] = [type(model).__qualname__]
    for name, value in state.items():
        parts += [name, tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes()]
    return fingerprint(*parts)
