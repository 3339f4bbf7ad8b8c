"""TensorFlow Lite Micro runs every structure: an interpreter with fewer operators, and smaller ones."""

from typing import Any

import numpy as np
import pytest
import torch
from tflite_micro.python.tflite_micro import runtime
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import export
from tests.strategies import factorized_structures

ARENA = 4_000_000
LAYERS = {
    "convolution": nn.Conv2d(8, 12, 3, padding=1),
    "transposed convolution": nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1),
}
STRUCTURES = factorized_structures()


class Each(nn.Module):
    """Gives what a layer gives in each structure: a conversion takes a second, whatever it converts."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        dense = nn.Sequential(layer)
        self.layers = nn.ModuleList(se.replace_layers(dense, {"0": structure}) for structure in STRUCTURES.values())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


@pytest.fixture(scope="module", params=LAYERS)
def outputs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """By the structure's name: what comes out, and what is expected."""
    model, x = Each(LAYERS[request.param]).eval(), torch.randn(1, 8, 6, 6)
    artifact = export(model, (x,), format="litert", out=tmp_path_factory.mktemp("each"))
    interpreter = runtime.Interpreter.from_file(str(artifact.path), arena_size=ARENA)
    interpreter.set_input(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()), 0)
    interpreter.invoke()
    expected = [value.detach().permute(0, 2, 3, 1).numpy() for value in model(x)]
    return {
        name: (interpreter.get_output(i), value)
        for i, (name, value) in enumerate(zip(STRUCTURES, expected, strict=True))
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", STRUCTURES)
def test_it_computes_what_the_model_computes(name: str, outputs: dict[str, tuple[Any, Any]]) -> None:
    found, expected = outputs[name]
    np.testing.assert_allclose(found, expected, atol=1e-5)
