"""Layers are scored, and plans made, evaluated and explained."""

import contextlib

import pytest
import torch
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.errors import ConfigError, InfeasibleBudgetError, UnsupportedLayerError
from sekron_edge.nn import approximate_weight, input_moments, layer_weight, replace_layers, replace_weights
from sekron_edge.planner import (
    Calibration,
    LayerSelection,
    ModelScores,
    Plan,
    PlanEvaluator,
    Pricing,
    WeightErrors,
    decompose,
    enumerate_structures,
    frontier,
    measure_sensitivity,
    score,
    score_for_all,
    with_sensitivity_of,
)
from sekron_edge.tensor import decompose_tensor
from tests.cost_models import CallsAreTime, MacsAreTime
from tests.narrowing import layer_at, present
from tests.planner.test_families import OWN


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=2),
        nn.Conv2d(32, 32, 3, groups=32),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


@pytest.fixture(scope="module")
def scores() -> ModelScores:
    return score(network(), (torch.randn(1, 3, 12, 12),), MacsAreTime())


def test_predicted_errors_are_those_of_the_decomposition(scores: ModelScores) -> None:
    modules = dict(network().named_modules())
    for layer in scores.layers:
        weight = layer_weight(modules[layer.name])
        for pick in layer.candidates[1::7]:
            sweeps = 20 if pick.family == "cp" else None  # scoring sees many candidates of it
            factors = [decompose_tensor(group, present(pick.structure), sweeps=sweeps) for group in weight]
            actual = (weight - torch.stack([group.reconstruct() for group in factors])).norm() / weight.norm()
            # HOOI's step lowers the closed form a little; CP's sweeps end where another one would gain little.
            if (least := {"tucker2": 1.03, "cp": 1.01}.get(pick.family)) is not None:
                assert float(actual) - 1e-5 <= pick.relative_error <= least * float(actual)
                continue
            assert pick.relative_error == pytest.approx(float(actual), abs=1e-5)


def test_with_calibration_data_errors_are_those_of_the_layers_outputs() -> None:
    # More samples than any layer has inputs: of fewer, errors of nothing but rounding are among the candidates.
    model, x = network(), torch.randn(600, 3, 12, 12) * torch.linspace(0.1, 3, 3).reshape(-1, 1, 1)
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    assert "calibration" in scores.error_source
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name in ("0", "2", "5"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    model(x)
    for layer in scores.layers:
        if layer.refused:
            continue
        module = model.get_submodule(layer.name)
        given, output = seen[layer.name]
        output = output - module(torch.zeros_like(given))  # without the bias
        moment = input_moments(model, (x,), {"0": module})["0"]
        for pick in layer.candidates[1::7]:
            structure = present(pick.structure)
            near = replace_weights(module, {"": approximate_weight(module, structure, moment=moment, sweeps=2)})
            moved = near(given) - near(torch.zeros_like(given))
            actual = (moved - output).norm() / output.norm()
            if pick.family == "cp":  # has had fewer sweeps than its decomposition will get
                assert pick.relative_error >= float(actual) * (1 - 5e-2)
                continue
            assert pick.relative_error == pytest.approx(float(actual), rel=2e-2, abs=1e-4)
            unrefined = replace_weights(module, {"": approximate_weight(module, structure)})(given) - module(given)
            assert pick.relative_error <= float(unrefined.norm() / output.norm()) + 1e-5


def test_factors_of_a_plan_are_refined_for_the_outputs_of_their_layers() -> None:
    model, x = network(), torch.randn(16, 3, 12, 12) * torch.linspace(0.1, 3, 3).reshape(-1, 1, 1)
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    plan = scores.plan(Budget(macs="0.5x"), profile="test", runtime="test")
    first = next(layer.name for layer in plan.layers if layer.structure is not None)
    seen: dict[str, Tensor] = {}
    model.get_submodule(first).register_forward_hook(lambda m, i, o: seen.update(given=i[0], output=o))
    model(x)

    def error(small: nn.Module) -> float:
        return float((small.get_submodule(first)(seen["given"]) - seen["output"]).norm())

    assert error(decompose(model, plan, calibration=(x,))) < error(decompose(model, plan))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.loud = nn.Conv2d(4, 8, 3)
        self.quiet = nn.Conv2d(4, 8, 3)
        self.quiet.load_state_dict(self.loud.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        both: Tensor = self.loud(x) + 1e-2 * self.quiet(x)
        return both.flatten(1)


def test_the_same_error_is_priced_by_what_it_does_to_the_models_output() -> None:
    model, x = Branches(), torch.randn(8, 4, 6, 6)
    given = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    steps = []
    measured = measure_sensitivity(
        given, Calibration(model, (x,)), divergence=lambda a, b: (a - b).square().mean(),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    # What else lives while they run differs, and so what is dominated.
    loud, quiet = ({c.structure: c.predicted_loss for c in layer.candidates[1:]} for layer in measured.layers)
    assert len(loud.keys() & quiet.keys()) > len(loud) // 2
    for structure in loud.keys() & quiet.keys():
        assert loud[structure] == pytest.approx(1e4 * quiet[structure], rel=1e-2)
    assert steps == [(1, 2), (2, 2)]


def test_sensitivities_are_the_mean_over_batches_that_fit_in_memory() -> None:
    model, x = Branches(), torch.randn(24, 4, 6, 6)
    given = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    at_once, in_parts = Calibration(model, (x,)), Calibration(model, (x,))
    in_parts.__dict__["at_once"] = 9  # three batches of eight
    sizes = []

    def moved(outputs: Tensor, reference: Tensor) -> Tensor:
        sizes.append(len(outputs))
        return (outputs - reference).square().mean()

    whole, parts = (measure_sensitivity(given, each, divergence=moved) for each in (at_once, in_parts))
    assert sizes == [24] * 2 + [8] * 6
    for one, other in zip(whole.layers, parts.layers, strict=True):
        expected = [candidate.predicted_loss for candidate in one.candidates]
        assert [candidate.predicted_loss for candidate in other.candidates] == pytest.approx(expected, rel=1e-4)


def test_a_dense_approximation_computes_what_the_factors_compute(scores: ModelScores) -> None:
    plan = scores.plan(Budget(macs="0.5x"), profile="host", runtime="litert")
    x = torch.randn(2, 3, 12, 12)
    model, structures = network(), plan.structures()
    layers = dict(model.named_modules())
    near = replace_weights(model, {name: approximate_weight(layers[name], one) for name, one in structures.items()})
    small = replace_layers(model, structures)
    torch.testing.assert_close(near(x), small(x), rtol=1e-4, atol=1e-5)


def test_corrections_scale_layers_and_add_to_the_rest(scores: ModelScores) -> None:
    before = scores.dense
    after = scores.corrected(
        source="a test", extra_ms=2.0, extra_bytes=7.0, scale=0.5, factor=lambda one: 3.0 if one.structure else 1.0
    )
    layers = before.latency_ms - scores.rest.latency_ms
    assert after.dense.latency_ms == pytest.approx(scores.rest.latency_ms + 2.0 + 0.5 * layers)
    assert after.dense.artifact_bytes == before.artifact_bytes + 7.0
    old, new = scores.layers[0].candidates[1], after.layers[0].candidates[1]
    assert new.cost.latency_ms == pytest.approx(1.5 * old.cost.latency_ms)
    assert after.latency_source.endswith("a test")


def test_predicted_parameters_are_those_of_the_model(scores: ModelScores) -> None:
    plan = scores.plan(Budget(macs="0.5x"), profile="host", runtime="litert")
    model = replace_layers(network(), plan.structures())
    assert plan.structures()
    assert plan.cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert plan.cost.macs <= plan.limits["macs"] == 0.5 * plan.dense.macs
    assert model(torch.randn(1, 3, 12, 12)).shape == (1, 10)


def test_a_plan_explains_itself_and_survives_json(scores: ModelScores) -> None:
    plan = scores.plan(Budget(macs="0.5x", artifact_bytes="0.6x"), profile="host", runtime="litert")
    assert Plan.model_validate_json(plan.to_json()) == plan
    assert scores.plan(Budget(macs="0.5x", artifact_bytes="0.6x"), profile="host", runtime="litert") == plan
    assert "depthwise" in {layer.name: layer for layer in plan.layers}["3"].reason
    assert "MACs" in str(plan)
    assert plan.solver.bound == pytest.approx(plan.solver.objective, rel=1e-3, abs=1e-6)


def test_every_layer_that_cannot_be_handled_is_in_the_plan_with_its_reason() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.ConvTranspose2d(8, 8, 3, stride=2, groups=8),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
        nn.PReLU(8),
        nn.Conv2d(8, 8, 3, groups=8),
    )
    scores = score(model, (torch.randn(1, 4, 9, 9),), MacsAreTime())
    plan = scores.plan(Budget(), profile="host", runtime="litert")
    reasons = {layer.name: layer.reason for layer in plan.layers}
    assert sorted(reasons) == ["0", "1", "2", "4"]
    assert "depthwise" in reasons["1"]
    assert "computed from 2.parametrizations" in reasons["2"]
    assert "depthwise" in reasons["4"]
    assert plan.cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    transposed = next(layer for layer in plan.layers if layer.name == "1")
    assert transposed.cost.macs == 7 * 7 * 8 * 9  # 7x7 inputs, 8 channels, each to 3x3 places


def test_without_a_budget_everything_stays_dense(scores: ModelScores) -> None:
    plan = scores.plan(Budget(), profile="host", runtime="litert")
    assert plan.structures() == {}
    assert plan.cost == plan.dense


def test_a_layer_with_values_that_are_not_finite_is_named() -> None:
    model = network()
    layer_at(model, "0", nn.Conv2d).weight.data[0] = float("inf")
    with pytest.raises(UnsupportedLayerError, match="layer '0'"):
        score(model, (torch.randn(1, 3, 12, 12),), MacsAreTime())


@pytest.mark.parametrize("given", ["fast", "-1", "0", "0.5y", -3])
def test_a_budget_that_is_no_limit_is_refused(given: int | str) -> None:
    with pytest.raises(Exception, match="positive number"):
        Budget(latency_ms=given)


def test_every_structure_offered_has_fewer_parameters() -> None:
    offered = list(enumerate_structures((16, 8, 3, 3)))
    assert {family for family, _ in offered} >= {"weight-svd", "spatial-svd", "tucker2", "sekron-2", "cp"}
    assert not {family for family, _ in offered} & {"sekron-3", "tensor-train", "tensor-ring"}
    assert all(structure.shape == (16, 8, 3, 3) for _, structure in offered)
    assert all(structure.num_params < 16 * 8 * 9 for _, structure in offered)


@pytest.mark.parametrize("family", OWN)
def test_every_family_is_offered_and_its_predicted_error_is_the_decompositions(family: str) -> None:
    weight = torch.randn(2, 8, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    errors = WeightErrors(weight)
    offered = [structure for name, structure in enumerate_structures((8, 6, 3, 3), [family]) if name == family]
    assert offered
    sweeps = {"cp": 20, "tensor-ring": 20}.get(family, 0)
    sample = offered[:: max(1, len(offered) // 12)]
    for structure, predicted in zip(sample, errors(sample), strict=True):
        assert structure.num_params < 8 * 6 * 9
        rebuilt = torch.stack([decompose_tensor(group, structure, sweeps=sweeps).reconstruct() for group in weight])
        actual = float((weight - rebuilt).norm() / weight.norm())
        # HOOI's step makes a chain of three a little better than its spectra say, and so do later sweeps.
        least = {"tucker2": 0.97, "cp": 0.99, "tensor-ring": 0.99}.get(family, 1 - 1e-4)
        assert predicted * least <= actual <= predicted * (1 + 1e-4) + 1e-6


@pytest.mark.parametrize("family", OWN)
def test_a_plan_of_each_family_alone_is_what_its_model_costs(family: str) -> None:
    model = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, groups=2))
    x = torch.randn(4, 6, 12, 12)
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,), families=[family])
    limit = min(candidate.cost.parameters for candidate in scores.layers[0].candidates) + 200
    plan = scores.plan(Budget(artifact_bytes=4 * limit), profile="host", runtime="litert")
    small = replace_layers(model, plan.structures())
    assert {layer.family for layer in plan.layers} - {"dense"} == {family}
    assert plan.cost.parameters == sum(parameter.numel() for parameter in small.parameters())
    assert small(x).shape == model(x).shape


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'svd'; known families: weight-svd"):
        list(enumerate_structures((8, 6, 3, 3), ["svd"]))


def softened(outputs: Tensor, reference: Tensor) -> Tensor:
    return (outputs - reference).square().mean()


def test_the_plan_that_is_chosen_diverges_least_and_keeps_the_budget() -> None:
    model, x = network(), torch.randn(32, 3, 12, 12)
    calibration, budget = Calibration(model, (x,)), Budget(macs="0.4x")
    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    scores = measure_sensitivity(scores, calibration, divergence=softened)
    evaluator = PlanEvaluator(calibration, divergence=softened)
    chosen = evaluator.plan(scores, budget, profile="test", runtime="test")
    offered = [scores.plan(budget, profile="test", runtime="test")]
    assert scores.families >= {"weight-svd", "tucker2", "sekron-2"}
    for family in scores.families:
        alone = scores.only([family])
        assert alone.families == {family}
        with contextlib.suppress(InfeasibleBudgetError):
            offered.append(alone.plan(budget, profile="test", runtime="test"))
    assert chosen.divergence == min(map(evaluator.divergence, offered))
    assert chosen.cost.macs <= 0.4 * scores.dense.macs
    small = decompose(model, chosen, calibration=(x,))
    with torch.no_grad():
        moved = float(softened(small(x), model.eval()(x)))
    assert moved == pytest.approx(chosen.divergence, rel=1e-2)
    with pytest.raises(InfeasibleBudgetError):
        evaluator.plan(scores, Budget(macs="0.0001x"), profile="test", runtime="test")


def test_an_evaluator_may_see_more_than_factors_are_refined_for() -> None:
    """In as many batches as it takes, and with the same result as in one."""
    model, x = network(), torch.randn(40, 3, 12, 12)
    sizes = []

    def noted(outputs: Tensor, reference: Tensor) -> Tensor:
        sizes.append(len(outputs))
        return softened(outputs, reference)

    scores = score(model, (x[:1],), MacsAreTime(), calibration=(x[:16],))
    plan = scores.plan(Budget(macs="0.5x"), profile="test", runtime="test")
    diverged = PlanEvaluator(Calibration(model, (x[:16],)), divergence=noted, evaluated_on=(x,)).divergence(plan)
    assert sum(sizes) == 40
    small = decompose(model, plan, calibration=(x[:16],)).eval()
    with torch.no_grad():
        assert diverged == pytest.approx(float(softened(small(x), model.eval()(x))), rel=0.05)


def test_the_least_is_what_a_plan_can_reach(scores: ModelScores) -> None:
    for entry in ("latency_ms", "artifact_bytes", "macs"):
        least = scores.least(entry)
        plan = scores.plan(Budget.model_validate({entry: least * (1 + 1e-6)}), profile="host", runtime="litert")
        assert getattr(plan.cost, entry) == pytest.approx(least, rel=1e-5)
        with pytest.raises(InfeasibleBudgetError):
            scores.plan(Budget.model_validate({entry: least * 0.99}), profile="host", runtime="litert")


def test_an_infeasible_budget_names_the_largest_layers_that_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1))
    scores = score(model, torch.ones(1, 8, 8, 8), MacsAreTime())
    with pytest.raises(
        InfeasibleBudgetError, match=r"Raise macs\. Layers .* their share of macs: '0' \(82%\): depthwise"
    ):
        scores.plan(Budget(macs="0.5x"), profile="host", runtime="litert")


def test_a_limit_that_decides_nothing_is_named(scores: ModelScores) -> None:
    budget = Budget(macs="0.5x", artifact_bytes="1.0x", peak_memory_bytes="1.0x")
    plan = scores.plan(budget, profile="host", runtime="litert")
    assert plan.solver.binding == ("macs",)
    said = str(plan)
    assert f"artifact_bytes <= {plan.limits['artifact_bytes']:.6g} does not bind" in said
    assert f"macs <= {plan.limits['macs']:.6g} binds" in said
    both = scores.plan(Budget(macs="0.5x", artifact_bytes="0.1x"), profile="host", runtime="litert")
    assert both.solver.binding == ("artifact_bytes",)
    assert scores.plan(Budget(macs="1.0x"), profile="host", runtime="litert").solver.binding == ()


def test_the_frontier_costs_ever_less_and_diverges_ever_more(scores: ModelScores) -> None:
    points = frontier(scores, points=6)
    times = [point.cost.latency_ms for point in points]
    losses = [point.predicted_loss for point in points]
    assert len(points) > 3
    assert times == sorted(times, reverse=True)
    assert losses == sorted(losses)
    assert times[0] == pytest.approx(scores.dense.latency_ms)
    assert times[-1] == pytest.approx(scores.least("latency_ms"))


def test_one_scoring_serves_several_devices() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(600, 3, 12, 12)
    targets = [Pricing(MacsAreTime()), Pricing(CallsAreTime(), "int8")]
    calibration = Calibration(model, (x,))
    first, second = score_for_all(model, (x[:1],), targets, calibration=calibration)
    alone = score(model, (x[:1],), MacsAreTime(), calibration=(x,))
    assert [layer.candidates[0] for layer in first.layers] == [layer.candidates[0] for layer in alone.layers]
    offered = [{c.structure for c in layer.candidates} for layer in first.layers]
    assert offered == [{c.structure for c in layer.candidates} for layer in alone.layers]
    assert second.latency_source == "another device"
    assert second.dense.latency_ms != first.dense.latency_ms
    assert second.dense.artifact_bytes < first.dense.artifact_bytes
    errors = [{c.structure: c.relative_error for c in layer.candidates} for layer in first.layers]
    for layer, known in zip(second.layers, errors, strict=True):
        assert all(known.get(c.structure, c.relative_error) == c.relative_error for c in layer.candidates)
    measured = measure_sensitivity(first, calibration, divergence=lambda out, reference: (out - reference).abs().mean())
    priced = with_sensitivity_of(second, measured)
    for one, other in zip(measured.layers, priced.layers, strict=True):
        slopes = [c.predicted_loss / c.relative_error**2 for c in (*one.candidates[1:], *other.candidates[1:])]
        assert slopes == pytest.approx(slopes[:1] * len(slopes))


def test_patterns_say_which_layers_may_be_compressed() -> None:
    chained = nn.Sequential(nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)), nn.Conv2d(16, 8, 1))
    example = (torch.randn(1, 3, 12, 12),)

    def free(selection: LayerSelection) -> list[str]:
        layers = score(chained, example, MacsAreTime(), selection=selection).layers
        kept = [layer for layer in layers if layer.refused]
        assert all("plan." in layer.refused for layer in kept)
        return [layer.name for layer in layers if not layer.refused]

    assert free(LayerSelection()) == ["0.0", "0.1", "1"]
    assert free(LayerSelection(only=("0.*",))) == ["0.0", "0.1"]
    assert free(LayerSelection(only=("0.*",), keep=("*.0",))) == ["0.1"]
    with pytest.raises(ConfigError, match=r"plan\.keep: no layer is named '0\.2'; near it: 0\.[01]"):
        free(LayerSelection(keep=("0.2",)))
