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
from sekron_edge.testing import ExporterContract


class TestLiteRT(ExporterContract):
    format = "litert"
    tolerance: ClassVar = {"fp32": 1e-4, "fp16": 1e-3, "int8": 0.1, "int8-weights": 0.03, "int4-weights": 0.4}


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
