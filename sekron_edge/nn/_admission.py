"""What a user's model must be, so that its layers can be changed and it can be exported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule

from sekron_edge.errors import ConfigError
from sekron_edge.nn._copies import copied, in_single, on_cpu

_WRAPPERS = (OptimizedModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
# Modules of these compute in integers, from weights in a form of their own.
_QUANTIZED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
    "torch.nn.quantized",
    "bitsandbytes",
)


def admitted(model: object, what: str = "the model") -> nn.Module:
    """Return a model, if it can be changed and exported; what ``torch.compile`` and DataParallel put around it is off.

    Args:
        model: Left untouched. The result is a copy where something inside it was wrapped.
        what: Where the model comes from, for messages.

    Raises:
        ConfigError: If it is not a ``torch.nn.Module``; if it, or a module in it, is TorchScript or quantized; if a
            weight has no values.
    """
    if isinstance(model, torch.export.ExportedProgram):
        raise ConfigError(f"{what} gives an ExportedProgram: give the torch.nn.Module that it was exported from")
    if isinstance(model, Mapping):
        raise ConfigError(
            f"{what} gives a {type(model).__name__}, as a state dict is: give a torch.nn.Module, and the state dict's "
            "file as its weights"
        )
    if isinstance(model, type) or not isinstance(model, nn.Module):
        raise ConfigError(f"{what} must give a torch.nn.Module; it gave {type(model).__name__}")
    found = _unwrapped(model)
    for name, module in found.named_modules():
        _require_plain(name, module, what)
    for name, value in (*found.named_parameters(), *found.named_buffers()):
        _require_values(name, value, what)
    return found


def exportable(model: object, what: str = "the model") -> nn.Module:
    """Return an admitted model in float32 on the CPU, as it is planned and exported: itself, or a copy.

    Raises:
        ConfigError: As `admitted`.
    """
    return on_cpu(in_single(admitted(model, what)))


def _unwrapped(model: nn.Module) -> nn.Module:
    """Take off the wrappers around a model, and those around modules in it; the latter in a copy."""
    model = _inside(model)
    if not any(isinstance(module, _WRAPPERS) for module in model.modules()):
        return model
    plain = copied(model)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            setattr(module, name, _inside(child))
    return plain


def _inside(module: nn.Module) -> nn.Module:
    while isinstance(module, _WRAPPERS):
        inner = module._orig_mod if isinstance(module, OptimizedModule) else module.module
        assert isinstance(inner, nn.Module)
        module = inner
    return module


def _require_plain(name: str, module: nn.Module, what: str) -> None:
    place, kind = f"layer {name!r} of {what}" if name else what, type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ConfigError(
            f"{place} gives a TorchScript module ({kind}), whose layers cannot be changed: give the torch.nn.Module "
            "that it was scripted or traced from"
        )
    if any(f"{type(module).__module__}.".startswith(f"{package}.") for package in _QUANTIZED):
        raise ConfigError(
            f"{place} is quantized already ({kind}): give the model in floats, and name the precision that it is to be "
            'exported in, as precisions = ["int8"]'
        )


def _require_values(name: str, value: Tensor, what: str) -> None:
    if nn.parameter.is_lazy(value):
        return  # the first run gives it its shape and its values
    if value.is_meta:
        raise ConfigError(
            f"{name} of {what} has no values (it is on PyTorch's meta device): load the weights, or make the model on "
            "the CPU"
        )
    is_parameter = isinstance(value, nn.Parameter)
    if (is_parameter and not value.is_floating_point() and not value.is_complex()) or value.is_quantized:
        raise ConfigError(
            f"{name} of {what} holds {str(value.dtype).removeprefix('torch.')}, as weights of quantized layers do: "
            'give the model in floats, and name the precision that it is to be exported in, as precisions = ["int8"]'
        )
