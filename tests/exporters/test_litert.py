"""What LiteRT's files compute is what PyTorch computes, in the runtime that ships."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from sekron_edge.artifacts import Quantization, TensorSpec, export, exporter_names, get_exporter, register_exporter
from sekron_edge.errors import ConfigError
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.exporters.tflite._macs import precision
from sekron_edge.testing import ExporterContract
from sekron_edge.verification import TOLERANCES, verify


class TestLiteRT(ExporterContract):
    format = "litert"
    tolerance: ClassVar = {
        "fp32": 1e-4,
        "fp16": 1e-3,
        "int8": 0.1,
        "int16x8": 0.03,
        "int8-weights": 0.03,
        "int4-weights": 0.4,
    }


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4))


@pytest.mark.slow
def test_images_are_taken_channels_last(tmp_path: Path) -> None:
    artifact = export(network(), (torch.randn(1, 3, 16, 16),), format="litert", out=tmp_path)
    assert artifact.inputs[0].layout == "channels_last"
    assert artifact.inputs[0].shape == (1, 16, 16, 3)


def test_unknown_formats_and_precisions_name_those_that_exist(tmp_path: Path) -> None:
    assert "litert" in exporter_names()
    with pytest.raises(ConfigError, match="litert"):
        get_exporter("onnx")
    with pytest.raises(ConfigError, match="fp32"):
        export(network(), (torch.randn(1, 3, 16, 16),), format="executorch", precision="fp16", out=tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        register_exporter(get_exporter("litert"))


def test_layouts_round_trip() -> None:
    spec = TensorSpec(name="x", shape=(1, 4, 5, 3), dtype="float32", layout="channels_last")
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 5)).astype("float32")
    assert spec.from_torch(x).shape == spec.shape
    np.testing.assert_array_equal(spec.to_torch(spec.from_torch(x)), x)


@given(st.floats(1e-3, 10), st.integers(-128, 127), st.integers(0, 2**31))
def test_integers_stand_for_real_values_within_half_a_step(scale: float, zero_point: int, seed: int) -> None:
    spec = TensorSpec(
        name="x", shape=(1, 4, 5, 3), dtype="int8", layout="channels_last",
        quantization=Quantization(scale=scale, zero_point=zero_point),
    )  # fmt: skip
    low, high = (scale * (end - zero_point) for end in (-128, 127))
    x = np.random.default_rng(seed).uniform(low, high, (1, 3, 4, 5)).astype("float32")
    given_to_it = spec.from_torch(x)
    assert given_to_it.dtype == np.int8
    assert np.abs(spec.to_torch(given_to_it) - x).max() <= 0.501 * scale
    assert spec.from_torch(np.full_like(x, 2 * high + 1)).min() == 127


@pytest.mark.parametrize(
    ("calibration", "said"), [(None, "there is none"), ((torch.randn(8, 3, 9, 9),), "must have the shapes")]
)
def test_int8_wants_calibration_data_of_the_inputs_shape(
    calibration: tuple[Tensor] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        export(
            network(), (torch.randn(1, 3, 16, 16),), format="litert", precision="int8", out=tmp_path,
            calibration=calibration,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


class Normed(nn.Module):
    """A convolution, a norm over what it computes, and another convolution."""

    def __init__(self, norm: nn.Module, *, channels_last: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(8, 8, 3, padding=1), norm, nn.Conv2d(8, 4, 1)
        self.order, self.back = ((0, 2, 3, 1), (0, 3, 1, 2)) if channels_last else ((0, 1, 2, 3), (0, 1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.norm(self.first(x).permute(self.order)).permute(self.back) + x)
        return found


class Root(nn.Module):
    """Vectors of length 1, as attention has them."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(1, 8), nn.GroupNorm(4, 8), nn.InstanceNorm2d(8), nn.LayerNorm(8), nn.RMSNorm(8), Root()],
    ids=repr,
)
def test_norms_of_values_of_many_magnitudes_stay_in_floats_in_int8(norm: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Normed(norm, channels_last=not isinstance(norm, nn.GroupNorm | nn.InstanceNorm2d)).eval()
    x = torch.randn(24, 8, 6, 6) * torch.logspace(-1, 0, 24)[:, None, None, None]
    artifact = export(model, x[:1], format="litert", precision="int8", out=tmp_path, calibration=x)
    graph = read_file(artifact.path).main
    integers = {one.kind for one in graph.operators if graph.tensors[one.outputs[0]].kind == "INT8"}
    floats = {one.kind for one in graph.operators if graph.tensors[one.outputs[0]].kind == "FLOAT32"}
    assert "CONV_2D" in integers
    assert not {"RSQRT", "SQRT", "SQUARED_DIFFERENCE", "DIV"} & integers
    assert {"RSQRT", "SQRT"} & floats
    assert verify(artifact, model, x, calibration=x, tolerance=TOLERANCES["int8"].of_outputs()).real.snr_db > 18


def test_what_only_looks_like_a_norm_is_rounded(tmp_path: Path) -> None:
    """Squeeze-and-excite has a mean that scales, and no root."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            gated: Tensor = y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid() + y * y
            return gated

    x = torch.randn(8, 8, 6, 6)
    artifact = export(Gated().eval(), x[:1], format="litert", precision="int8", out=tmp_path, calibration=x)
    assert {tensor.kind for tensor in read_file(artifact.path).main.tensors if tensor.data is None} == {"INT8"}


@pytest.mark.slow
def test_sixteen_bit_activations_cost_next_to_nothing_and_have_weights_of_eight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = network().eval(), torch.randn(16, 3, 16, 16)
    artifact = export(model, x[:1], format="litert", precision="int16x8", out=tmp_path, calibration=x)
    file = read_file(artifact.path)
    convolution = next(one for one in file.main.operators if one.kind == "CONV_2D")
    assert [file.main.tensors[number].kind for number in convolution.inputs] == ["INT16", "INT8", "INT64"]
    assert precision(file) == "int16x8"
    assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype, artifact.delegated) == ("int16", "int16", 0.0)
    weights = export(model, x[:1], format="litert", precision="int8-weights", out=tmp_path, calibration=x)
    alone, both = (
        verify(one, model, x, calibration=x, tolerance=TOLERANCES[one.precision].of_outputs()).real.snr_db
        for one in (weights, artifact)
    )
    assert both > alone - 1
