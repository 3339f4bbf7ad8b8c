"""TensorFlow Lite Micro runs every structure: an interpreter with fewer operators, and smaller ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tflite_micro.python.tflite_micro import runtime
from torch import nn

import sekron_edge as se
from sekron_edge.artifacts import export
from tests.strategies import factorized_structures

ARENA = 4_000_000
LAYERS = {
    "convolution": nn.Conv2d(8, 12, 3, padding=1),
    "transposed convolution": nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", factorized_structures())
@pytest.mark.parametrize("kind", LAYERS)
def test_it_computes_what_the_model_computes(kind: str, name: str, tmp_path: Path) -> None:
    model = se.replace_layers(nn.Sequential(LAYERS[kind]), {"0": factorized_structures()[name]}).eval()
    x = torch.randn(1, 8, 6, 6)
    artifact = export(model, (x,), format="litert", out=tmp_path)
    interpreter = runtime.Interpreter.from_file(str(artifact.path), arena_size=ARENA)
    interpreter.set_input(np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy()), 0)
    interpreter.invoke()
    expected = model(x).detach().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(interpreter.get_output(0), expected, atol=1e-5)
