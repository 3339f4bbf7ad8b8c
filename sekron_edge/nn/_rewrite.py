"""The only place that changes a user's model; it changes a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from sekron_edge.arguments import require, shown
from sekron_edge.errors import ConfigError, RankError, StructureError, UnsupportedLayerError
from sekron_edge.nn._admission import admitted
from sekron_edge.nn._geometry import TransposedConvolution, joined_weight, layer_weight
from sekron_edge.nn._layers import factorize_layer
from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor import FactorizedTensor, decompose_tensor

_Given = TypeVar("_Given")
_CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def supported_layers(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the layers that can be factorized, and why other convolutions and linear layers stay dense, by name.

    Subclasses count where they compute what their base does; others are what their graph says (`operations`). A module
    that the model uses under several names appears once, under the first.
    """
    supported: dict[str, nn.Module] = {}
    refused: dict[str, str] = {}
    holders = _holders(model)
    for name, module in model.named_modules():
        if not _is_plain(module):
            continue
        others = [other for other in holders[id(module._parameters["weight"])] if other is not module]
        groups = getattr(module, "groups", 1)
        if others:
            refused[name] = f"its weight is tied to that of another {type(others[0]).__name__}"
        elif groups > 1 and groups == getattr(module, "in_channels", 0):
            refused[name] = "depthwise: one input channel a group leaves nothing to factorize"
        else:
            supported[name] = module
    return supported, refused


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes just what a linear layer or a convolution of PyTorch computes from its own weight."""
    base = next((base for base in (nn.Linear, *_CONVOLUTIONS) if isinstance(module, base)), None)
    weight = module._parameters.get("weight")
    if base is None or weight is None or nn.parameter.is_lazy(weight):
        return False
    methods = ("forward", "_conv_forward")
    return all(getattr(type(module), name, None) is getattr(base, name, None) for name in methods)


def _holders(model: nn.Module) -> dict[int, list[nn.Module]]:
    """Return the modules that hold each parameter, by the parameter's identity."""
    holders: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), []).append(module)
    return holders


def replace_layers(
    model: nn.Module, structures: Mapping[str, Structure], *, moments: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Return a copy of ``model`` whose named layers compute with factors of their weights.

    Args:
        model: Left untouched. What ``torch.compile`` and DataParallel put around it is off; names are those inside.
        structures: The structure of one group's weight, by layer name. Adjacent pointwise factors are merged wherever
            the product has no more values.
        moments: ``E[x x^T]`` of layers' inputs, by name, as `input_moments` returns them. The factors of these layers
            are refined for the error of the layer's output, the others for that of the weight.

    Raises:
        ConfigError: If the model has no layer of that name, or an argument is of the wrong type.
        UnsupportedLayerError: If a layer cannot be factorized; names it.
        StructureError: If a structure is not of its layer's shape; names the layer.
        RankError: If a rank exceeds the layer's; names the layer.
    """
    require(structures, Mapping, "structures", "a dict from layers' names to structures")
    for name, structure in structures.items():
        require(structure, Structure, f"the structure of layer {name!r}", "a sekron_edge.Structure")
    model = admitted(model)

    def factorized(name: str, layer: nn.Module, structure: Structure) -> nn.Module:
        return _with(layer, factors_of(layer, structure, moment=(moments or {}).get(name)))

    return _replaced(model, structures, factorized)


def replace_by_factors(model: nn.Module, factors: Mapping[str, Sequence[FactorizedTensor]]) -> nn.Module:
    """Return a copy of ``model`` whose named layers compute with known factors; errors are those of `replace_layers`.

    Args:
        model: Left untouched.
        factors: Of each group of a layer's weight, as `factors_of` returns them, by the layer's name.
    """
    return _replaced(model, factors, lambda _, layer, groups: _with(layer, groups))


def _with(layer: nn.Module, groups: Sequence[FactorizedTensor]) -> nn.Module:
    return factorize_layer(layer, [group.simplified() for group in groups])


def factorize(model: nn.Module, structure_for: Callable[[str, nn.Module, Shape], Structure | None]) -> nn.Module:
    """Return a copy of ``model`` with structures from a function of each layer: no plan, no device.

    Args:
        model: Left untouched.
        structure_for: Called for each layer that can be factorized, with its name, the layer, and the shape
            ``(F / groups, C / groups, *kernel)`` of one group's weight; None leaves it dense.

    Raises:
        UnsupportedLayerError: If a weight is not finite; names the layer.
        StructureError: If a structure is not of its layer's shape.
    """
    if not callable(structure_for):
        raise ConfigError(f"structure_for must be a function of a layer; got {shown(structure_for)}")
    model = admitted(model)
    layers, _ = supported_layers(model)
    structures = {}
    for name, layer in layers.items():
        structure = structure_for(name, layer, tuple(layer_weight(layer).shape[1:]))
        if structure is not None:
            structures[name] = structure
    return replace_layers(model, structures)


def replace_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` whose named layers have other weights, each of its layer's shape.

    Raises:
        ConfigError: If the model has no layer of that name.
    """

    def changed(_: str, layer: nn.Module, weight: Tensor) -> nn.Module:
        other = copy.deepcopy(layer)
        other.get_parameter("weight").data = weight
        return other

    return _replaced(model, weights, changed)


def approximate_weight(
    layer: nn.Module, structure: Structure, *, moment: Tensor | None = None, sweeps: int | None = None
) -> Tensor:
    """Return a layer's weight, in its own shape, rebuilt from a structure's factors.

    With it the layer computes the same as with factors, at the dense layer's cost: for judging an error.

    Args:
        layer: Left untouched.
        structure: Of one group's weight.
        moment: ``E[x x^T]`` of the layer's inputs, as `input_moments` returns it; the factors are refined for it.
        sweeps: As in `decompose_tensor`.

    Raises:
        UnsupportedLayerError: If the weight is not finite.
        StructureError: If the structure is not of its shape.
        RankError: If a rank exceeds the weight's.
    """
    return weight_of_factors(layer, factors_of(layer, structure, moment=moment, sweeps=sweeps))


def weight_of_factors(layer: nn.Module, factors: Sequence[FactorizedTensor]) -> Tensor:
    """Return the weight that the factors of each group stand for, in a layer's own shape."""
    dense = [group.reconstruct() for group in factors]
    return joined_weight(dense, transposed=isinstance(layer, TransposedConvolution))


def factors_of(
    layer: nn.Module, structure: Structure, *, moment: Tensor | None = None, sweeps: int | None = None
) -> list[FactorizedTensor]:
    """Return the factors of each group of a layer's weight; arguments and errors are those of `approximate_weight`."""
    weights = layer_weight(layer)
    sigmas: Sequence[Tensor | None] = [None] * len(weights) if moment is None else [*moment]
    return [decompose_tensor(weight, structure, s, sweeps=sweeps) for weight, s in zip(weights, sigmas, strict=True)]


def _replaced(
    model: nn.Module,
    given: Mapping[str, _Given],
    replacement: Callable[[str, nn.Module, _Given], nn.Module],
) -> nn.Module:
    rewritten = copy.deepcopy(model)
    modules = dict(rewritten.named_modules(remove_duplicate=False))
    replacements: dict[nn.Module, nn.Module] = {}
    for name, one in given.items():
        if name not in modules:
            raise ConfigError(
                f"the model has no layer {name!r}; where a model uses weights outside of layers, plans are for what "
                "sekron_edge.expose_layers returns"
            )
        layer = modules[name]
        try:
            replacements[layer] = replacement(name, layer, one)
        except (StructureError, RankError) as error:
            raise type(error)(f"layer {name!r}: {error}") from error
        except (UnsupportedLayerError, AttributeError) as error:
            raise UnsupportedLayerError(f"layer {name!r}: {error}") from error
    if rewritten in replacements:
        return replacements[rewritten]
    for name, module in modules.items():
        if module in replacements:
            parent, _, child = name.rpartition(".")
            setattr(modules[parent], child, replacements[module])
    return rewritten
