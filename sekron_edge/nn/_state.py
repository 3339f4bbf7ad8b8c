"""State dicts in which a tensor that has several names is there once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def tied_names(model: nn.Module) -> dict[str, str]:
    """Return the further names of tensors that a state dict holds more than once, each with the tensor's first name."""
    first: dict[tuple[object, ...], str] = {}
    tied = {}
    for name, value in model.state_dict().items():
        if value.numel():
            key = value.data_ptr(), tuple(value.shape), value.stride(), value.dtype
            tied[name] = first.setdefault(key, name)
    return {name: original for name, original in tied.items() if name != original}


def untied_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict with each tensor under its first name only, as safetensors must have it."""
    tied = tied_names(model)
    return {name: value.contiguous() for name, value in model.state_dict().items() if name not in tied}


def whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with all names of the model's tied tensors, wherever it has one of a tensor's names."""
    whole = dict(state)
    for name, original in tied_names(model).items():
        if name in whole:
            whole.setdefault(original, whole[name])
    for name, original in tied_names(model).items():
        if original in whole:
            whole.setdefault(name, whole[original])
    return whole
