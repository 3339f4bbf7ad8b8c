"""Operators that converters do not know, or know wrongly: exported they compute the same, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import Precision, get_exporter, predict
from sekron_edge.errors import ExportError
from sekron_edge.exporters._canonical import COREML, EXECUTORCH, LITERT, Converter, canonical
from sekron_edge.exporters._plain.convolution import convolution_over_three_axes, transposed_convolution
from sekron_edge.exporters._plain.pooling import largest_of_windows, mean_of_windows
from sekron_edge.exporters._plain.resizing import linear_by_factors, nearest_of_no_multiple

FORMATS = ["litert", "executorch", "coreml"]
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*_flat_weights.*:UserWarning")


class Applied(nn.Module):
    """A function of the input and of layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def image(channels: int = 4, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def decoders(x: Tensor, up: nn.Module, dilated: nn.Module, grouped: nn.Module) -> Tensor:
    places = (2, 3)  # kept as axes: a random network's largest output is no decision
    y: Tensor = grouped(up(x)).mean(places, keepdim=True) + dilated(x).mean(places, keepdim=True)
    return y


def arithmetic(x: Tensor) -> Tensor:
    y = torch.add(x, x.relu(), alpha=0.5) + torch.sub(x, x.relu(), alpha=2.0) + torch.rsub(x, 1.0, alpha=2.0)
    y = y + torch.addcmul(x, x, x, value=0.5) + torch.addcdiv(x, x, x.abs() + 1, value=0.5)
    z = x.flatten(0, 1)
    return y + torch.lerp(x, x.relu(), 0.3) + torch.baddbmm(z, z, z, beta=0.5, alpha=0.3).reshape(x.shape)


def padding(x: Tensor) -> Tensor:
    ends = (1, 2, 2, 1)
    y = F.pad(x, ends, mode="circular") + F.pad(x, ends, mode="reflect") + F.pad(x, ends, mode="replicate")
    return F.pad(y, (-1, 0, 0, -2)) + F.pad(y, (0, -1, -2, 0), mode="circular")


def resizing(x: Tensor) -> Tensor:
    y = F.interpolate(x, scale_factor=2, mode="bicubic") + F.interpolate(x, size=(16, 16), mode="nearest-exact")
    return y + F.interpolate(F.channel_shuffle(x, 2), size=(16, 16), mode="bicubic", align_corners=True)


def pooling(x: Tensor) -> Tensor:
    y = F.avg_pool2d(x, 2, 3, ceil_mode=True) + F.avg_pool2d(x, 3, 3, 1, divisor_override=5)[..., :3, :3]
    return (
        y
        + F.adaptive_avg_pool2d(x, (3, 3))
        + F.avg_pool2d(x, 3, 3, 1, ceil_mode=True, count_include_pad=False)[..., :3, :3]
    )


def spread(x: Tensor, layer: nn.Module) -> Tensor:
    """Separable attention, as MobileViTv2 has it: one operand is spread by hand."""
    query, key, value = layer(x).split([1, 4, 4], dim=1)
    context = (key * query.softmax(-1)).sum(-1, keepdim=True)
    attended: Tensor = F.relu(value) * context.expand_as(value)
    return attended


NETWORKS: dict[str, tuple[nn.Module, Tensor]] = {
    "transposed convolutions": (
        Applied(
            decoders,
            nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
            nn.ConvTranspose2d(4, 8, 3, 2, 1, dilation=2),
            nn.ConvTranspose2d(6, 8, 3, 2, 1, output_padding=1, groups=2),
        ),
        image(),
    ),
    "in one dimension": (
        nn.Sequential(
            nn.Conv1d(4, 6, 3, padding="same"), nn.Conv1d(6, 6, 4, padding="same"), nn.ConvTranspose1d(6, 4, 3, 2, 1, 1)
        ),
        torch.randn(2, 4, 16),
    ),
    "in three dimensions": (
        nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.MaxPool3d(2), nn.Conv3d(4, 4, 2, dilation=(1, 1, 2))),
        torch.randn(2, 2, 4, 6, 6),
    ),
    "arithmetic": (Applied(arithmetic), image()),
    "padding": (Applied(padding), image()),
    "resizing": (Applied(resizing), image()),
    "operands that are spread": (Applied(spread, nn.Conv2d(4, 9, 1)), image()),
    "pooling": (Applied(pooling), image(4, 7)),
    "activations": (
        nn.Sequential(nn.CELU(0.5), nn.LogSigmoid(), nn.RReLU(), nn.Hardtanh(-2, 2), nn.RMSNorm(8)), image(),
    ),
    "transformer": (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"), 1),
        torch.randn(2, 5, 8),
    ),
    "recurrences": (
        Applied(
            lambda x, lstm, gru: gru(lstm(x)[0])[0],
            nn.LSTM(8, 6, batch_first=True, bidirectional=True),
            nn.GRU(12, 4, batch_first=True),
        ),
        torch.randn(2, 4, 8),
    ),
    "norms of weights": (
        nn.Sequential(
            nn.utils.weight_norm(nn.Conv2d(4, 6, 3)), nn.utils.parametrizations.spectral_norm(nn.Conv2d(6, 4, 3))
        ),
        image(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_operators_compute_the_same_in_every_format(name: str, format: str, tmp_path: Path) -> None:
    model, inputs = NETWORKS[name]
    artifact = se.export(model.eval(), inputs[:1], format=format, out=tmp_path)
    assert se.verify(artifact, model, [inputs]).real.snr_db > 60


@pytest.mark.parametrize("format", ["litert", "executorch"])
@pytest.mark.parametrize("name", ["transposed convolutions", "in one dimension"])
def test_integers_too(name: str, format: str, tmp_path: Path) -> None:
    model, inputs = NETWORKS[name]
    precision: Precision = "int8"
    samples = torch.cat([inputs] * 8)
    artifact = se.export(
        model.eval(), inputs[:1], format=format, precision=precision, out=tmp_path, calibration=[samples]
    )
    se.verify(artifact, model, [samples])


def test_integers_are_not_divided_by_what_may_round_to_zero(tmp_path: Path) -> None:
    """Vectors of very different lengths are normalized, as attention over channels does."""
    model = Applied(lambda x, layer: F.normalize(layer(x).flatten(2), dim=-1), nn.Conv2d(4, 4, 1, bias=False)).eval()
    samples = image(4, 4).repeat(4, 1, 1, 1) * torch.logspace(-3, 0, 8).view(8, 1, 1, 1)
    artifact = se.export(
        model, samples[:1], format="litert", precision="int8", out=tmp_path, calibration=[samples]
    )  # fmt: skip
    (shortest,) = predict(get_exporter("litert").load(artifact), artifact, [samples[:1].numpy()])
    assert np.isfinite(shortest).all()
    assert se.verify(artifact, model, [samples[-2:]]).real.snr_db > 15


@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_what_a_format_has_no_form_of_is_named(format: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.ConvTranspose3d(4, 6, 2, 2))
    with pytest.raises(ExportError, match=rf"{format} has no form of conv_transpose3d, .* \(layer '0'\)"):
        se.export(model, torch.randn(1, 4, 4, 4, 4), format=format, out=tmp_path)


def window_mask(x: Tensor, convolution: nn.Module) -> Tensor:
    """Attention's mask of shifted windows, as Swin writes it: region by region into zeros."""
    y = convolution(x)
    regions = y.new_zeros(y.shape[2:])
    for number, part in enumerate((slice(0, -3), slice(-3, None))):
        regions[part, part] = number + 1
    apart = regions - regions.T
    masked: Tensor = y + torch.relu(y) * apart.masked_fill(apart != 0, -100.0)
    return masked


@pytest.mark.parametrize("converter", [COREML, EXECUTORCH, LITERT], ids=lambda converter: converter.name)
def test_a_mask_that_depends_on_no_input_is_computed_before_the_converter(converter: Converter) -> None:
    model = Applied(window_mask, nn.Conv2d(4, 4, 3, padding=1)).eval()
    plainer = canonical(model, (image()[:1],), converter)
    torch.testing.assert_close(plainer(image()[:1]), model(image()[:1]))
    graph = torch.export.export(plainer, (image()[:1],)).graph
    operators = [node.name for node in graph.nodes if node.op == "call_function"]
    assert operators == ["conv2d", "relu", "mul", "add"]


class Standardized(nn.Conv2d):
    """Its weights have no mean and unit variance whenever it runs, as in networks without batch norms."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.flatten(1)[None], None, None, training=True, momentum=0.0)
        y: Tensor = self._conv_forward(x, 0.2 * weight.reshape(self.weight.shape), self.bias)
        return y


@pytest.mark.parametrize("format", FORMATS)
def test_weights_that_are_computed_are_weights_to_converters(format: str, tmp_path: Path) -> None:
    model = nn.Sequential(Standardized(4, 8, 3, padding=1), nn.ReLU(), Standardized(8, 4, 3)).eval()
    for precision, least in (("fp32", 100), ("int8", 25)):
        if precision in get_exporter(format).precisions and (precision, format) != ("int8", "coreml"):
            artifact = se.export(
                model, image()[:1], format=format, precision=precision, out=tmp_path, calibration=[image()]
            )
            assert se.verify(artifact, model, [image()], calibration=[image()]).real.snr_db > least
            if format == "litert" and precision == "int8":
                assert artifact.size_bytes < 8000


def test_weights_that_are_only_viewed_stay_as_they_are() -> None:
    model = Applied(lambda x, layer: F.conv2d(x, layer.weight.reshape(8, 4, 1, 1)), nn.Linear(4, 8)).eval()
    assert canonical(model, (image()[:1],), COREML) is model


def test_a_graph_whose_shapes_depend_on_data_is_refused_with_a_remedy(tmp_path: Path) -> None:
    model = Applied(lambda x: x[x > 0])
    with pytest.raises(ExportError, match=r"shape .* must not depend on the data|depend"):
        se.export(model, image()[:1], format="coreml", out=tmp_path)


@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_padding_by_nothing_is_left_out_in_int8(format: str, tmp_path: Path) -> None:
    model = Applied(lambda x, layer: F.pad(x + layer(x), (0, 0, 0, 0)) * 2, nn.Conv2d(4, 4, 3, padding=1)).eval()
    artifact = se.export(model, image()[:1], format=format, precision="int8", out=tmp_path, calibration=[image()])
    assert se.verify(artifact, model, [image()], calibration=[image()]).real.snr_db > 25


sizes = st.integers(1, 3)


def exact_randn(*shape: int) -> Tensor:
    """Return random values in float64: sums in another order differ in float32 by more than a few last places."""
    return torch.randn(*shape, dtype=torch.float64)


@given(
    kernel=st.integers(1, 4), stride=sizes, cut=st.integers(0, 3), extra=st.integers(0, 2), hole=sizes,
    groups=st.sampled_from([1, 2]), dims=st.integers(1, 3), bias=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_transposed_convolution_in_plainer_form_is_the_same(
    kernel: int, stride: int, cut: int, extra: int, hole: int, groups: int, dims: int, bias: bool
) -> None:
    extra = min(extra, max(stride, hole) - 1)
    length = (3 - 1) * stride - 2 * cut + hole * (kernel - 1) + extra + 1
    if length < 1:
        return
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    x, weight = exact_randn(1, 4, *[3] * dims), exact_randn(4, 3, *[kernel] * dims)
    given_bias = exact_randn(3 * groups) if bias else None
    found = transposed_convolution(x, weight, given_bias, stride, cut, extra, groups, hole)
    if found is not NotImplemented:
        torch.testing.assert_close(found, convolve(x, weight, given_bias, stride, cut, extra, groups, hole))


@given(
    size=st.integers(3, 9), kernel=st.integers(1, 4), stride=st.integers(1, 4), cut=st.integers(0, 1),
    counted=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_windows_that_reach_beyond_the_image_are_the_same(
    size: int, kernel: int, stride: int, cut: int, counted: bool
) -> None:
    cut = min(cut, kernel // 2)
    if kernel > size:
        return
    x = exact_randn(1, 2, size, size)
    found = mean_of_windows(x, kernel, stride, cut, True, counted)
    torch.testing.assert_close(found, F.avg_pool2d(x, kernel, stride, cut, True, counted))


@given(
    size=st.integers(3, 9), kernel=st.integers(1, 3), stride=st.integers(1, 4), cut=st.integers(0, 1),
    hole=st.integers(1, 2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_largest_values_without_windows_behind_the_image_are_the_same(
    size: int, kernel: int, stride: int, cut: int, hole: int
) -> None:
    cut = min(cut, kernel // 2)
    if hole * (kernel - 1) + 1 > size:
        return
    x = -torch.rand(1, 2, size, size + 1)
    found = largest_of_windows(x, kernel, stride, cut, hole, True)
    if found is not NotImplemented:
        torch.testing.assert_close(found, F.max_pool2d(x, kernel, stride, cut, hole, True))


@given(factors=st.lists(st.floats(0.4, 3), min_size=1, max_size=2))
@settings(max_examples=60, deadline=None)
def test_resizing_by_any_factor_is_the_same(factors: list[float]) -> None:
    x = torch.randn(1, 2, *[7, 5][: len(factors)])
    linear = linear_by_factors(x, None, False, factors)
    mode = ["linear", "bilinear"][len(factors) - 1]
    if linear is not NotImplemented:
        torch.testing.assert_close(linear, F.interpolate(x, scale_factor=factors, mode=mode), rtol=1e-4, atol=1e-5)
    near = nearest_of_no_multiple(x, None, factors)
    if near is not NotImplemented:
        torch.testing.assert_close(near, F.interpolate(x, scale_factor=factors, mode="nearest"))


@given(
    depth=st.integers(3, 5),
    kernel=sizes,
    stride=sizes,
    cut=st.integers(0, 1),
    hole=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
@settings(max_examples=30, deadline=None)
def test_a_convolution_over_three_axes_is_a_sum_over_the_first(
    depth: int, kernel: int, stride: int, cut: int, hole: int, groups: int
) -> None:
    if depth + 2 * cut < hole * (kernel - 1) + 1:
        return
    x, weight = exact_randn(2, 4, depth, 5, 5), exact_randn(6, 4 // groups, kernel, 2, 2)
    bias = exact_randn(6)
    found = convolution_over_three_axes(x, weight, bias, stride, cut, hole, groups)
    torch.testing.assert_close(found, F.conv3d(x, weight, bias, stride, cut, hole, groups))
