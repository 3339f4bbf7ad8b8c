"""What a type checker cannot know, said in a way that is also checked."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)
Value = TypeVar("Value")


def layer_at(model: nn.Module, name: str, kind: type[Layer]) -> Layer:
    """Return a layer that must be of a class."""
    layer = model.get_submodule(name)
    assert isinstance(layer, kind)
    return layer


def present(value: Value | None) -> Value:
    """Return a value that must be there."""
    assert value is not None
    return value
