"""What LiteRT's files compute is what PyTorch computes, in the runtime that ships."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.errors import ConfigError, ExportError
from sekron_edge.artifacts import TensorSpec, export, exporter_names, get_exporter, predict, register_exporter
from sekron_edge.structure import full, tucker2

RELATIVE = 1e-4


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    structures = {"0": tucker2((16, 3, 3, 3), 8, 3), "3": full([(4, 4, 3, 1), (8, 4, 1, 3)], [8])}
    model = se.replace_layers(network(), structures).eval()
    before = copy.deepcopy(model.state_dict())
    model.train()
    artifact = export(model, (torch.randn(1, 3, 16, 16),), format="litert", out=tmp_path_factory.mktemp("litert"))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return model.eval(), artifact


@pytest.mark.slow
def test_a_compressed_model_computes_what_pytorch_computes(compressed):
    model, artifact = compressed
    x = torch.randn(3, 3, 16, 16)
    (actual,) = predict(get_exporter("litert").load(artifact), artifact, [x.numpy()])
    expected = model(x).detach().numpy()
    assert np.abs(actual - expected).max() <= RELATIVE * np.abs(expected).max()
    assert artifact.inputs[0].layout == "channels_last"
    assert artifact.size_bytes == artifact.path.stat().st_size


@pytest.mark.slow
def test_a_broken_file_is_one_clear_error(compressed, tmp_path):
    _, artifact = compressed
    broken = artifact.model_copy(update={"path": tmp_path / "broken.tflite"})
    broken.path.write_bytes(b"not a model at all")
    with pytest.raises(ExportError, match=r"no \.tflite file"):
        get_exporter("litert").load(broken)


@pytest.mark.slow
def test_a_failed_export_leaves_nothing_behind(tmp_path):
    class Dynamic(nn.Module):
        def forward(self, x):
            return x[x > 0]

    with pytest.raises(ExportError, match="Dynamic"):
        export(Dynamic(), (torch.randn(1, 3),), format="litert", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_and_precisions_name_those_that_exist(tmp_path):
    assert "litert" in exporter_names()
    with pytest.raises(ConfigError, match="litert"):
        get_exporter("onnx")
    with pytest.raises(ConfigError, match="fp32"):
        export(network(), (torch.randn(1, 3, 16, 16),), format="litert", precision="int8", out=tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        register_exporter(get_exporter("litert"))


def test_layouts_round_trip():
    spec = TensorSpec(name="x", shape=(1, 4, 5, 3), dtype="float32", layout="channels_last")
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype("float32")
    assert spec.from_torch(x).shape == spec.shape
    np.testing.assert_array_equal(spec.to_torch(spec.from_torch(x)), x)
