"""Rounding in floats is what the int8 file does; its report names what costs most; training against it helps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sekron_edge as se
from sekron_edge.errors import ConfigError
from sekron_edge.nn import FakeQuantized
from sekron_edge.quantization import QuantizationConfig, report_quantization, simulated
from sekron_edge.structure import tucker2
from sekron_edge.verification import compare


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.second(x))
        logits: torch.Tensor = self.last(x.mean((2, 3)))
        return logits


def _network() -> nn.Module:
    torch.manual_seed(0)
    return se.replace_layers(_Residual(), {"second": tucker2((8, 8, 3, 3), 4, 4)}).eval()


def test_every_weight_and_every_activation_is_on_its_grid() -> None:
    seen: list[torch.Tensor] = []
    layer = nn.Linear(6, 5)
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inputs = torch.randn(16, 6)
    found = FakeQuantized(layer, [(inputs,)]).eval()(inputs)
    assert len(found.unique()) <= 256
    assert 20 < compare([layer(inputs).detach().numpy()], [found.detach().numpy()]).snr_db < 60


def test_layers_are_named_in_running_order_and_outputs_come_close() -> None:
    model, inputs = _network(), torch.randn(32, 3, 12, 12)
    rounding = simulated(model, inputs)
    assert rounding.layers == ("first", "second", "last")
    with torch.no_grad():
        assert compare([model(inputs).numpy()], [rounding(inputs).numpy()]).snr_db > 25


def test_nothing_is_rounded_where_every_place_is_left_exact() -> None:
    model, inputs = _network(), torch.randn(8, 3, 12, 12)
    rounding = FakeQuantized(model, [(inputs,)]).eval()
    with torch.no_grad(), rounding.without([*rounding.layers, None]):
        assert torch.equal(rounding(inputs), model(inputs))


def test_a_scale_by_output_channel_is_rounded_alike() -> None:
    """Why batch norms need not be folded before."""
    layer, inputs = nn.Conv2d(3, 4, 3, bias=False), torch.randn(8, 3, 6, 6)
    scale = torch.tensor([0.1, 1.0, 3.0, 20.0]).reshape(1, 4, 1, 1)
    scaled = nn.Conv2d(3, 4, 3, bias=False)
    scaled.weight.data = layer.weight.detach() * scale.reshape(4, 1, 1, 1)
    with torch.no_grad():
        one, other = (FakeQuantized(one, [(inputs,)]).eval() for one in (layer, scaled))
        with one.without([None]), other.without([None]):
            torch.testing.assert_close(one(inputs) * scale, other(inputs), rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.floats(min_value=1e-3, max_value=1e3), st.booleans())
def test_zero_stays_zero_whatever_the_range(size: float, positive: bool) -> None:
    inputs = torch.rand(16, 4) * size + (size if positive else -2 * size)
    layer = nn.Linear(4, 3, bias=False)
    rounding = FakeQuantized(layer, [(inputs,)]).eval()
    with torch.no_grad(), rounding.without([None]):
        assert torch.equal(rounding(torch.zeros(1, 4)), torch.zeros(1, 3))


def test_gradients_reach_every_factor_through_the_rounding() -> None:
    model, inputs = _network(), torch.randn(8, 3, 12, 12)
    FakeQuantized(model, [(inputs,)]).train()(inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_report_names_the_layer_that_was_made_hard_to_round() -> None:
    model, inputs = _network(), torch.randn(64, 3, 12, 12)
    with torch.no_grad():
        # One input channel far larger than the rest, and hardly used: the others lose their steps.
        inputs[:, 0] *= 300
        model.get_submodule("first").get_parameter("weight")[:, 0] *= 1 / 300
    report = report_quantization(model, inputs, float_errors={"second": 0.25})
    assert report.to_blame == "first"
    assert report.keep_float == ("first",)
    assert report.kept_snr_db > report.snr_db + 3
    assert {layer.name: layer.float_error for layer in report.layers} == {"first": None, "second": 0.25, "last": None}
    assert "first" in str(report)


def test_a_kept_layer_reads_what_rounded_ones_give_and_inputs_as_they_are() -> None:
    """In a file the values that a rounded layer gives are integers, whatever reads them."""
    model, inputs = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).eval(), torch.randn(16, 6)
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        first = FakeQuantized(model, [(inputs,)], ["0"]).eval()(inputs)
        exact = model[1](model[0](inputs))
        rounding = FakeQuantized(model, [(inputs,)], ["2"]).eval()
        model[2].register_forward_hook(lambda _, given, out: seen.update(out=out))
        assert torch.equal(rounding(inputs), seen["out"])
        low = FakeQuantized(model[2], [(exact,)]).eval()
        with low.without([None]):
            torch.testing.assert_close(low(exact), _in_eight_bits(exact, model[2]), rtol=1e-4, atol=1e-4)
    assert not torch.equal(first, model(inputs))
    assert rounding.makers("2") == {"0"}
    assert rounding.makers("0") == frozenset()


def _in_eight_bits(values: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    scale = values.max() / 255
    weight = layer.get_parameter("weight")
    steps = weight.abs().amax(1, keepdim=True) / 127
    rounded: torch.Tensor = nn.functional.linear(
        (values / scale).round() * scale, (weight / steps).round() * steps, layer.get_parameter("bias")
    )
    return rounded


def test_a_layer_that_only_reads_a_hard_value_is_proposed_with_what_makes_it() -> None:
    """Alone in float it would read values that are rounded already."""
    torch.manual_seed(0)
    model, inputs = (
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)),
        torch.randn(64, 8),
    )
    with torch.no_grad():
        model[2].get_parameter("weight")[0] *= 1000
        model[2].get_parameter("bias")[0] = 1000
        model[4].get_parameter("weight")[:, 0] /= 1000
    report = report_quantization(model.eval(), inputs)
    assert report.to_blame == "4"
    assert report.keep_float == ("2", "4")
    given = report_quantization(model, inputs, keep_float=["2", "4"])
    assert given.kept
    assert given.kept_snr_db == report.kept_snr_db > report.snr_db + 3
    assert "as delivered" in str(given)


def test_training_against_rounding_leaves_kept_layers_exact() -> None:
    model, inputs = _network(), torch.randn(8, 3, 12, 12)
    rounding = FakeQuantized(model, [(inputs,)], ["first", "second", "last"]).train()
    rounding(inputs).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_names_are_auto_or_a_list() -> None:
    assert QuantizationConfig(keep_float="auto").named_floats == ()
    assert QuantizationConfig(keep_float=["a", "b"]).named_floats == ("a", "b")
    for wrong in ("all", 3, ["a", 1]):
        with pytest.raises(ConfigError, match='keep_float: Input should be "auto", or a list'):
            QuantizationConfig(keep_float=wrong)
