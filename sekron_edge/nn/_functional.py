"""Layers in the place of parameters that a model hands to functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# F.conv2d and its like are these very functions of torch.
_FUNCTIONS = (
    F.linear,
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
)


class FunctionalWeight(nn.Module):
    """Stands where a model has a weight, and computes with a layer when it is handed to ``F.conv2d`` or ``F.linear``.

    A model that says ``F.linear(x, self.weight, self.bias)`` finds this module as ``self.weight``; PyTorch asks it to
    compute the function (the protocol ``__torch_function__``).

    Attributes:
        layer: A layer, dense or with factors. It has the stride, padding and groups that the model gives the function.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute one of the functions with the layer.

        Raises:
            TypeError: If it is another function.
        """
        del types
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | dict(kwargs or {})
        weight = given.get("weight")
        if func not in _FUNCTIONS or not isinstance(weight, cls) or isinstance(given["input"], cls):
            return NotImplemented
        outputs: Tensor = weight.layer(given["input"])
        bias = given.get("bias")
        if bias is None:
            return outputs
        return outputs + (bias if func is F.linear else bias.reshape(-1, *[1] * (outputs.ndim - 2)))

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        return self._like.shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weight's values."""
        return next(self.layer.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device that holds the weight."""
        return next(self.layer.parameters()).device

    @property
    def ndim(self) -> int:
        """The number of the weight's axes."""
        return len(self.shape)

    def size(self, axis: int | None = None) -> Any:
        """Return the shape, or the size of an axis."""
        return self.shape if axis is None else self.shape[axis]

    @property
    def _like(self) -> Tensor:
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        return weight
