"""Layers of a model, by their class: a type checker knows only that they are modules."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def layer_at(model: nn.Module, name: str, kind: type[Layer]) -> Layer:
    """Return a layer that must be of a class."""
    layer = model.get_submodule(name)
    assert isinstance(layer, kind)
    return layer
