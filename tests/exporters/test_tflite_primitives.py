"""Models written with the schema compute what the primitive says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sekron_edge.artifacts import Precision, PrimitiveExporter, get_exporter
from sekron_edge.primitives import Conv, Linear, Permute, Primitive

PRIMITIVES: dict[str, Primitive] = {
    "conv": Conv((1, 3, 8, 8), 16, (3, 3), (1, 1), (1, 1), 1, (8, 8)),
    "strided": Conv((1, 8, 8, 8), 16, (3, 3), (2, 2), (1, 1), 1, (4, 4)),
    "valid": Conv((2, 8, 9, 9), 4, (3, 1), (1, 1), (1, 1), 1, (7, 9)),
    "dilated": Conv((1, 4, 9, 9), 4, (3, 3), (1, 1), (2, 2), 1, (9, 9)),
    "depthwise": Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 8, (8, 8)),
    "grouped": Conv((1, 8, 8, 8), 16, (1, 1), (1, 1), (1, 1), 2, (8, 8)),
    "one axis": Conv((1, 8, 20), 4, (3,), (1,), (1,), 1, (20,)),
    "linear": Linear(5, 8, 3),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_shapes_and_sizes_are_those_of_the_primitive(name: str, precision: Precision, tmp_path: Path) -> None:
    exporter = get_exporter("litert")
    assert isinstance(exporter, PrimitiveExporter)
    primitive = PRIMITIVES[name]
    artifact = exporter.export_primitive(primitive, tmp_path / "p.tflite", precision=precision)
    assert np.prod(artifact.outputs[0].shape) == primitive.out_elements
    assert {spec.dtype for spec in artifact.inputs + artifact.outputs} == {"int8" if precision == "int8" else "float32"}
    values = artifact.inputs[0].from_torch(np.random.default_rng(0).standard_normal(artifact.inputs[0].shape))
    (out,) = exporter.load(artifact).run([values])
    assert np.isfinite(out).all()
    assert out.std() > 0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_permute_moves_what_pytorch_would_move(precision: Precision, tmp_path: Path) -> None:
    exporter = get_exporter("litert")
    assert isinstance(exporter, PrimitiveExporter)
    primitive = Permute((2, 3, 4, 5), (0, 2, 1, 3))
    artifact = exporter.export_primitive(primitive, tmp_path / "p.tflite", precision=precision)
    x = torch.arange(120, dtype=getattr(torch, artifact.inputs[0].dtype)).reshape(2, 12, 5)
    (out,) = exporter.load(artifact).run([x.permute(0, 2, 1).contiguous().numpy()])
    expected = nn.Flatten(1, 2)(x.reshape(2, 3, 4, 5).permute(0, 2, 1, 3)).permute(0, 2, 1)
    assert np.array_equal(out, expected.numpy())
