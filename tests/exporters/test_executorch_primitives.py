"""Primitives side by side in one program are told apart by ExecuTorch's tracer."""

from pathlib import Path

import pytest
import torch

from sekron_edge.artifacts import Precision, TracedPrimitiveExporter, calibratable, get_exporter
from sekron_edge.errors import ExportError
from sekron_edge.exporters.executorch._primitives import Primitives, times_of
from sekron_edge.measurement import Conditions, LocalDevice
from sekron_edge.primitives import Conv, ConvTranspose, Copy, Elementwise, Linear, Permute, Pool, Primitive, Reshape
from tests.narrowing import present

SMALL = Conv((1, 8, 8, 8), 8, (3, 3), (1, 1), (1, 1), 1, (8, 8), (1, 1))
LARGE = Conv((1, 64, 32, 32), 128, (3, 3), (1, 1), (1, 1), 1, (32, 32), (1, 1))
PRIMITIVES: list[Primitive] = [
    SMALL,
    LARGE,
    Conv((1, 16, 14, 14), 16, (3, 3), (2, 2), (1, 1), 16, (7, 7), (1, 1)),
    Conv((4, 16, 14, 14), 32, (1, 1), (1, 1), (1, 1), 1, (14, 14)),
    Linear(4, 64, 10),
    Permute((1, 4, 8, 2, 784), (0, 2, 1, 3, 4)),
    Reshape((1, 64, 784), (8, 8, 784)),
    Elementwise("add", (1, 64, 28, 28), 2),
    Elementwise("add", (1, 64, 28, 28), 1),
    Elementwise("clip", (1, 64, 28, 28)),
    Elementwise("curve", (1, 64, 28, 28)),
    Pool("max", (1, 64, 28, 28), (2, 2), (2, 2), (14, 14)),
    Pool("mean", (1, 64, 28, 28), (3, 3), (2, 2), (14, 14)),
    Pool("mean", (1, 64, 28, 28), (28, 28), (28, 28), (1, 1)),
    Copy((1, 64, 28, 28), 3),
    LARGE,
]


def test_outputs_are_as_large_as_the_primitives_say() -> None:
    model = Primitives(PRIMITIVES).eval()
    with torch.inference_mode():
        outputs = model(*model.example_inputs())
    assert [out.numel() for out in outputs] == [primitive.out_elements for primitive in PRIMITIVES]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_each_is_timed_by_itself(precision: Precision, tmp_path: Path) -> None:
    exporter = get_exporter("executorch")
    assert isinstance(exporter, TracedPrimitiveExporter)
    artifact = exporter.export_primitives(PRIMITIVES, tmp_path / "p.pte", precision=precision)
    (whole,) = LocalDevice().time_operators([artifact], Conditions(runs=1, warmup=1))
    operators = [(one.name, one.milliseconds, present(one.spread_ms)) for one in whole.operators]
    times = [time for time, _ in exporter.primitive_times(PRIMITIVES, operators)]
    assert all(time > 0 for time in times)
    # The same primitive, first and last: what stands between did not shift the count.
    assert times[-1] == pytest.approx(times[1], rel=0.5)
    assert times[1] > 20 * times[0]
    with pytest.raises(ExportError, match="too few"):
        exporter.primitive_times(PRIMITIVES, operators[:-20])
    with pytest.raises(ExportError, match="too many"):
        exporter.primitive_times(PRIMITIVES[:-1], operators)


def test_what_lies_between_products_is_what_was_to_be_timed() -> None:
    operators = [
        ("Convolution (NHWC, F32) DWConv #1", 1.0, 0.0), ("Transpose #1", 0.25, 0.1), ("Copy", 0.5, 0.2),
        ("Convolution (NHWC, F32) DWConv #2", 1.0, 0.0), ("Transpose #2", 9.0, 0.0),
        ("Abs (NC) #1", 9.0, 0.0), ("Fully Connected (NC, F32) GEMM #1", 2.0, 0.3),
    ]  # fmt: skip
    found = times_of([PRIMITIVES[6], PRIMITIVES[4]], operators)
    assert found == [pytest.approx((0.751, 0.3)), pytest.approx((2.0005, 0.3))]


def test_transposed_convolutions_are_not_timed() -> None:
    with pytest.raises(ValueError, match="like it"):
        Primitives([ConvTranspose((1, 8, 8, 8), 8, (2, 2), (2, 2), 1, (16, 16))])


def test_only_what_runs_here_is_calibrated() -> None:
    assert calibratable("executorch", "int8")
    assert not calibratable("executorch:vulkan", "fp32")
    assert not calibratable("coreml", "fp32")
