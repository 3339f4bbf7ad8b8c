"""The operators of a .tflite file that belong to layers which are kept in float, and what stays in float around them.

Names say too little: litert-torch names what it merges by one of the layers, and outputs by none. So the model is
converted a second time with other weights in these layers: the operators whose constants differ are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from .._around_floats import Step, staying_in_float
from ._floats import scope_of
from ._graph import Graph, Operator, TFLiteFile

_WITH_WEIGHTS = {
    "CONV_2D", "CONV_3D", "CONV_3D_TRANSPOSE", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV",
}  # fmt: skip


def with_other_weights(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return a copy of a model whose weights are others in some layers, and in no others that share them."""
    other = deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for name in layers:
        for module in other.get_submodule(name).modules():
            for own, weight in module.named_parameters(recurse=False):
                # Zeros stay zeros: the converter leaves out sums with them.
                factor = 1.5 + torch.rand(weight.shape, generator=generator)
                module.register_parameter(own, nn.Parameter(weight.detach() * factor))
    return other


def floats_around(file: TFLiteFile, other: TFLiteFile) -> list[str]:
    """Return the scopes (`scope_of`) of the operations that stay in float, those of inputs and outputs included.

    Args:
        file: Of the model, in float.
        other: Of the same model with other weights in the layers that are kept.

    Raises:
        ValueError: If the files are of other operators, or no constant differs.
    """
    scopes: list[str] = []
    for graph, changed in zip(file.graphs, other.graphs, strict=True):
        if [one.kind for one in graph.operators] != [one.kind for one in changed.operators]:
            raise ValueError("the converter writes other operators for other weights: no layer can be kept in float")
        steps = [_step(graph, changed, *pair) for pair in zip(graph.operators, changed.operators, strict=True)]
        if not any(step.role == "kept" for step in steps):
            continue
        floats = staying_in_float(steps, graph.inputs, graph.outputs)
        results = [graph.operators[place].outputs for place in sorted(floats.steps)]
        results += [ends for ends in (graph.inputs, graph.outputs) if floats.values.intersection(ends)]
        scopes += [scope_of(graph, numbers) for numbers in results]
    if not scopes:
        raise ValueError("the layers to be kept in float leave no operator in the file")
    return scopes


def _step(graph: Graph, changed: Graph, own: Operator, other: Operator) -> Step:
    computed = tuple(number for number in own.inputs if number >= 0 and graph.tensors[number].data is None)
    if _constants(graph, own) != _constants(changed, other):
        return Step(computed, own.outputs, "kept")
    adds = own.kind == "ADD" and len({graph.tensors[number].shape for number in computed}) == 1 and len(computed) > 1
    return Step(computed, own.outputs, "rounded" if adds or own.kind in _WITH_WEIGHTS else "passing")


def _constants(graph: Graph, operator: Operator) -> list[bytes]:
    read = (graph.tensors[number].data for number in operator.inputs if number >= 0)
    return [data.tobytes() for data in read if data is not None]
