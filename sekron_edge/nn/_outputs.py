"""Running a user's model once: its outputs, or one error that says what is wrong with it or with its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.errors import ConfigError, SekronEdgeError
from sekron_edge.nn._modes import evaluation_mode, unfused_attention
from sekron_edge.users_code import line_of

_LONGEST_CAUSE = 300


def exportable_inputs(inputs: pytrees.Inputs, model: nn.Module) -> pytrees.Inputs:
    """Return inputs as models are planned and exported with: dense tensors on the CPU, floats in float32, no gradients.

    Args:
        inputs: In the form of `sekron_edge.pytrees.call`.
        model: That they are for; for messages.

    Raises:
        ConfigError: If there is no tensor in them, one without values, or something that no call can be exported with.
    """
    foreign = pytrees.foreign(inputs)
    if foreign is not None:
        raise ConfigError(
            f"inputs of {type(model).__name__} must be tensors, in tuples, lists and dicts; they hold {foreign}"
        )
    found = pytrees.tensors(inputs)
    if not found:
        raise ConfigError(
            f"inputs of {type(model).__name__} must hold a tensor; got {type(inputs).__name__}. "
            f"It takes {_taken(model)}"
        )
    for value in found:
        if value.is_meta or not value.numel() or value.layout != torch.strided or value.is_quantized:
            raise ConfigError(
                f"inputs of {type(model).__name__} must be dense tensors with values; got one of shape "
                f"{tuple(value.shape)}, {value.dtype}, {value.layout}, on {value.device.type}"
            )
    return pytrees.map_tensors(lambda value: value.detach().cpu(), pytrees.in_single(inputs))


def outputs_for(model: nn.Module, inputs: pytrees.Inputs) -> Any:
    """Return a model's outputs, in evaluation mode; the model and the inputs are left as they were.

    Raises:
        ConfigError: If the model does not take the inputs, changes them in place, or its outputs hold no
            tensor, or what cannot be exported.
    """
    given = pytrees.map_tensors(torch.clone, inputs)
    with errors_of(model, inputs), torch.no_grad(), evaluation_mode(model), unfused_attention(), _state_kept(model):
        outputs = pytrees.call(model, given)
    changed = [name for name, value in pytrees.named_tensors(given, "0").items() if value._version]
    if changed:
        raise ConfigError(
            f"{type(model).__name__} changes its input {', '.join(changed)} in place, which artifacts cannot: use a "
            f"clone() of it in forward{_taken(model)}"
        )
    foreign = pytrees.foreign(outputs)
    if foreign is not None:
        raise ConfigError(f"{type(model).__name__} must give tensors, in tuples, lists and dicts; it gave {foreign}")
    if not pytrees.tensors(outputs):
        raise ConfigError(f"{type(model).__name__} must give tensors; it gave {type(outputs).__name__}")
    return outputs


@contextmanager
def errors_of(model: nn.Module, inputs: pytrees.Inputs) -> Iterator[None]:
    """Turn what a model raises on inputs into one `ConfigError`: the user's line, the cause, what the model takes."""
    try:
        yield
    except SekronEdgeError:
        raise
    except Exception as error:  # the user's code may raise anything
        shapes = ", ".join(str(tuple(value.shape)) for value in pytrees.tensors(inputs)) or type(inputs).__name__
        line, cause = line_of(error), str(error).strip()[:_LONGEST_CAUSE]
        kind = "" if isinstance(error, RuntimeError | TypeError) and cause else f"{type(error).__name__}: "
        raise ConfigError(
            f"{type(model).__name__} does not take inputs of shape {shapes}: "
            f"{f'{line}: ' if line else ''}{kind}{cause}; "
            f"it takes {_taken(model)}"
        ) from error


def _taken(model: nn.Module) -> str:
    """Return the names of what a model's forward takes, with their defaults."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # of a builtin
        return "(...)"
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))


@contextmanager
def _state_kept(model: nn.Module) -> Iterator[None]:
    """Give a model back its buffers and PyTorch its random state after the block."""
    kept: list[tuple[nn.Module, str, Tensor, Tensor]] = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not nn.parameter.is_lazy(buffer)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            yield
        finally:
            for module, name, buffer, value in kept:
                if module._buffers.get(name) is not buffer:
                    module._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
