"""Starting values for training in factorized form from scratch."""

from __future__ import annotations

from math import prod, sqrt

import torch
from torch import Tensor, nn

from sekron_edge.nn._layers import FactorizedConv, FactorizedLinear


def initialize_factors_(model: nn.Module, *, gain: float = sqrt(2), generator: torch.Generator | None = None) -> None:
    """Draw the factors of every factorized layer: the weight they stand for gets He's variance, ``gain^2 / fan_in``.

    The entries of ``sum over labels of A^(1) (x) .. (x) A^(S)``, with independent factors, have the variance
    ``R * prod var(A^(k))``, R the product of all ranks. All factors get equal shares. Biases become 0.

    Args:
        model: Changed in place.
        gain: Of the nonlinearity that follows; ``sqrt(2)`` for ReLU (He et al. 2015).
        generator: Of the random numbers; torch's own if None.
    """
    for layer in model.modules():
        if isinstance(layer, FactorizedConv | FactorizedLinear):
            structure = layer.structure
            variance = gain**2 / prod(structure.shape[1:]) / prod(structure.sizes)
            _draw_([*layer.weights], variance ** (0.5 / len(structure.factors)), generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _draw_(weights: list[Tensor], std: float, generator: torch.Generator | None) -> None:
    for weight in weights:
        nn.init.normal_(weight, std=std, generator=generator)
