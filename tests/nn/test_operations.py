"""A model as operations: what is merged, what lives at once, and what a runtime allocates for it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import ExportError
from sekron_edge.nn import FactorizedConv, layer_primitives, operations, peak_elements, replace_layers
from sekron_edge.nn._operations import channel_scale
from sekron_edge.primitives import Conv, Elementwise, Linear, Pool, Reshape
from sekron_edge.structure import full, tucker2
from tests.narrowing import layer_at


class Block(nn.Module):
    """A residual block that calls one of its convolutions twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.first(x)), inplace=True)
        y = torch.relu(self.second(y) + x)
        y = self.second(y)
        logits: Tensor = self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return logits


X = (torch.randn(1, 16, 8, 8),)


def test_norms_and_activations_are_merged_and_every_call_of_a_layer_counts() -> None:
    graph = operations(Block(), X)
    found = [(operation.layer, [type(p) for p in operation.primitives]) for operation in graph.operations]
    assert found == [
        ("first", [Conv]), ("second", [Conv]), (None, [Elementwise]), ("second", [Conv]), (None, [Pool]),
        ("head", [Linear]),
    ]  # fmt: skip
    addition = graph.operations[2].primitives[0]
    assert isinstance(addition, Elementwise)
    assert addition.operands == 2


def test_what_lives_beside_an_operation_is_what_later_ones_read() -> None:
    graph = operations(Block(), X)
    # The input waits for the sum; the first convolution reads it, and keeps it.
    assert graph.held() == [1024, 1024, 0, 0, 0, 0]
    assert graph.kept_inputs() == [1024, 0, 0, 0, 0, 0]
    peaks = [
        peak_elements(operation.primitives, held, kept)
        for operation, held, kept in zip(graph.operations, graph.held(), graph.kept_inputs(), strict=True)
    ]
    assert peaks == [2048, 3072, 3072, 2048, 1040, 26]


def test_layers_with_factors_are_their_schedule() -> None:
    structures = {"first": tucker2((16, 16, 3, 3), 8, 8), "second": full([(2, 2, 1, 1), (8, 8, 3, 3)], [2])}
    small = replace_layers(Block(), structures)
    graph = operations(small, X)
    by_layer = [operation for operation in graph.operations if operation.layer is not None]
    assert [operation.layer for operation in by_layer] == ["first", "second", "second", "head"]
    assert by_layer[0].primitives == layer_at(small, "first", FactorizedConv).plan.primitives((1, 16, 8, 8))
    second = by_layer[1].primitives
    steps = layer_at(small, "second", FactorizedConv).plan.primitives((1, 16, 8, 8))
    assert second[: len(steps)] == steps
    # Its last step gives no channels in order: the bias is an operation of its own.
    assert second[-1] == Conv((1, 16, 8, 8), 16, (1, 1), (1, 1), (1, 1), 16, (8, 8), (0, 0))
    assert any(isinstance(primitive, Reshape) for primitive in second)


def test_a_norm_that_nothing_can_take_is_priced_by_itself() -> None:
    model = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1))
    graph = operations(model, X)
    norm, layer = graph.operations
    assert norm.layer is None
    assert norm.primitives == (channel_scale((1, 16, 8, 8)),)
    assert layer.layer == "2"


def test_what_cannot_be_traced_is_said() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ExportError, match=r"Branching cannot be traced by torch\.export"):
        operations(Branching(), X)


def test_a_norm_after_split_outputs_is_priced_as_the_operation_it_becomes() -> None:
    layer, shape = nn.Conv2d(16, 16, 3, padding=1, bias=False), (1, 16, 8, 8)
    split, whole = full([(2, 2, 1, 1), (8, 8, 3, 3)], [2]), tucker2((16, 16, 3, 3), 8, 8)
    added = [layer_primitives(own, layer, shape, has_norm=True)[len(layer_primitives(own, layer, shape)) :]
             for own in (split, whole)]  # fmt: skip
    assert added == [(channel_scale(shape),), ()]
    graph = operations(nn.Sequential(layer, nn.BatchNorm2d(16)).eval(), torch.randn(shape))
    assert [operation.has_norm for operation in graph.operations] == [True]
