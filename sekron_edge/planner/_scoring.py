"""Scoring a model: the cost and the error of each candidate of each layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import count
from math import prod

from torch import Tensor, nn

from sekron_edge.arguments import require, require_names
from sekron_edge.budget import LayerCost
from sekron_edge.errors import ConfigError, UnsupportedLayerError
from sekron_edge.nn import (
    OperationGraph,
    admitted,
    exportable,
    exportable_inputs,
    expose_layers,
    layer_weight,
    operations,
    outputs_for,
    replace_layers,
    supported_layers,
)
from sekron_edge.planner._calibration import Calibration
from sekron_edge.planner._candidates import Candidate, LayerScores, enumerate_structures, undominated
from sekron_edge.planner._costs import (
    Call,
    CostModel,
    Prices,
    Pricing,
    calls_of,
    hidden_cost,
    refused_cost,
    rest_cost,
    weight_shape,
)
from sekron_edge.planner._errors import WeightErrors, output_errors
from sekron_edge.planner._model_scores import ModelScores
from sekron_edge.planner._names import DENSE
from sekron_edge.planner._plan import Plan
from sekron_edge.planner._selection import EVERY_LAYER, LayerSelection
from sekron_edge.primitives import WEIGHT_BYTES, WEIGHTS_ALONE, FileCosts
from sekron_edge.pytrees import Inputs, batches
from sekron_edge.structure import Factor, Structure
from sekron_edge.threads import each_on_a_thread

_Price = Callable[[Structure, nn.Module, Sequence[Call]], LayerCost]


def decompose(model: nn.Module, plan: Plan, *, calibration: Inputs | None = None) -> nn.Module:
    """Return a copy of ``model`` with the layers of a plan.

    Args:
        model: Left untouched.
        plan: Made for this model.
        calibration: Real inputs, batched, in the form of `sekron_edge.pytrees.call`; never held-out data. With them
            the factors are refined for the error of the layers' outputs: a much better start for fine-tuning.

    Raises:
        ConfigError: If the plan names a layer that the model does not have. Jobs plan copies of models with layers
            exposed: without calibration data, give the result of `sekron_edge.expose_layers`.
        UnsupportedLayerError: If a layer cannot be factorized; names it.
    """
    require(plan, Plan, "plan", "what sekron_edge.plan returned, or Plan.model_validate_json of its file")
    model = admitted(model)
    structures = plan.structures()
    if calibration is not None and not structures.keys() <= dict(model.named_modules()).keys():
        model = expose_layers(model, next(batches(calibration, 1)))
    moments = None if calibration is None else Calibration(model, calibration).moments(structures)
    return replace_layers(model, structures, moments=moments)


def score(
    model: nn.Module,
    example_inputs: Inputs,
    cost_model: CostModel,
    *,
    precision: str = "fp32",
    file_costs: FileCosts = WEIGHTS_ALONE,
    calibration: Inputs | None = None,
    families: Collection[str] | None = None,
    selection: LayerSelection = EVERY_LAYER,
) -> ModelScores:
    """Price every candidate of every layer, and its error.

    Errors come from the weights' spectra; with calibration data, those of the candidates that are not dominated are
    errors of the layer's output on that data.

    Args:
        model: Traced on the example inputs in ``eval`` mode; left as it was.
        example_inputs: Costs are for their shapes; in the form of `sekron_edge.pytrees.call`.
        cost_model: The target's.
        precision: Decides the bytes of a value.
        file_costs: Bytes of operations in the artifact beside their weights; by default none.
        calibration: Real inputs, batched, in the form of `sekron_edge.pytrees.call`; never held-out data.
        families: Names of the families to offer; those that are offered by default if None.
        selection: The layers that may be compressed.

    Raises:
        ConfigError: If a pattern of the selection is no layer's name, an argument is of the wrong type, or the model
            does not take the inputs.
        UnsupportedLayerError: If a layer's weights are not finite; names it.
        ExportError: If the model cannot be traced.
    """
    require(cost_model, CostModel, "cost_model", "a latency model, or another sekron_edge.planner.CostModel")
    if precision not in WEIGHT_BYTES:
        raise ConfigError(f"precision must be one of {', '.join(WEIGHT_BYTES)}; got {precision!r}")
    if families is not None:
        require_names(families, "families", "tucker2")
    model = exportable(model)
    example_inputs = exportable_inputs(example_inputs, model)
    outputs_for(model, example_inputs)  # says what is wrong with the inputs
    if calibration is not None:
        calibration = exportable_inputs(calibration, model)
    target = Pricing(cost_model, precision, file_costs)
    calibrated = None if calibration is None else Calibration(model, calibration)
    (scores,) = score_for_all(
        model, example_inputs, [target], calibration=calibrated, families=families, selection=selection
    )
    return scores


def score_for_all(
    model: nn.Module,
    example_inputs: Inputs,
    targets: Sequence[Pricing],
    *,
    calibration: Calibration | None = None,
    families: Collection[str] | None = None,
    selection: LayerSelection = EVERY_LAYER,
    progress: Callable[[int, int], None] | None = None,
) -> list[ModelScores]:
    """Score for several targets at once: each keeps the candidates that nothing beats there; errors are computed once.

    Args:
        model: As for `score`.
        example_inputs: As for `score`.
        targets: Their prices.
        calibration: Of that model.
        families: As for `score`.
        selection: As for `score`.
        progress: Called with the number of finished layers, and of all layers.

    Raises:
        UnsupportedLayerError: As `score`.
        ExportError: As `score`.
    """
    graph = operations(model, example_inputs)
    calls = calls_of(graph)
    supported, refused = _choices(model, graph, selection)
    modules = dict(model.named_modules())
    names = [*supported, *refused]
    prices = Prices(targets)
    moments: Mapping[str, Tensor] = {} if calibration is None else calibration.moments(supported)

    def scored(name: str) -> list[LayerScores]:
        if name in refused:
            elsewhere = tied[name]
            priced = [target.of(name) for target in targets]
            return [_refused(name, modules[name], calls[name], target, refused[name], elsewhere) for target in priced]
        try:
            return _score_layer(
                name,
                modules[name],
                calls[name],
                [partial(prices.cost, target=index, name=name) for index in range(len(targets))],
                moment=moments.get(name),
                families=families,
            )
        except UnsupportedLayerError as error:
            raise UnsupportedLayerError(f"layer {name!r}: {error}") from error

    # A layer that never runs costs nothing. The largest layers take longest, so they come first.
    running = [name for name in names if name in calls]
    tied = _counted_elsewhere(modules, running)
    by_size = sorted(running, key=lambda name: -prod(weight_shape(modules[name])))
    finished = count(1)

    def noted(name: str) -> list[LayerScores]:
        own = scored(name)
        if progress is not None:
            progress(next(finished), len(by_size))
        return own

    of = dict(zip(by_size, each_on_a_thread(noted, by_size), strict=True))
    by_layer = [of[name] for name in running]
    by_layer += [[_hidden(name, graph, target) for target in targets] for name in graph.hidden]
    counted = sum(layers[0].candidates[0].cost.parameters for layers in by_layer)
    others = sum(parameter.numel() for parameter in model.parameters()) - counted
    return [
        ModelScores(
            precision=target.precision,
            latency_source=target.cost_model.source,
            error_source="layers' weights" if calibration is None else "layers' outputs on calibration data",
            layers=tuple(layers[index] for layers in by_layer),
            rest=rest_cost(others, graph, target),
        )
        for index, target in enumerate(targets)
    ]


def _choices(
    model: nn.Module, graph: OperationGraph, selection: LayerSelection
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the layers that can be factorized, and why others stay dense, by name."""
    supported, refused = supported_layers(model)
    elsewhere = {id(model.get_parameter(source)) for hidden in graph.hidden.values() for source in hidden.sources}
    for name in [name for name, layer in supported.items() if id(layer.get_parameter("weight")) in elsewhere]:
        del supported[name]
        refused[name] = "its weight is also used through a function"
    for name, reason in selection.refused([*supported, *refused, *graph.hidden]).items():
        if supported.pop(name, None) is not None:
            refused[name] = reason
    return supported, refused


def _counted_elsewhere(modules: Mapping[str, nn.Module], running: Sequence[str]) -> dict[str, int]:
    """Return the number of each layer's weights that a layer before it has as well, and that are counted there."""
    seen: set[int] = set()
    counted = {}
    for name in running:
        weight = modules[name].get_parameter("weight")
        counted[name] = weight.numel() if id(weight) in seen else 0
        seen.add(id(weight))
    return counted


def _hidden(name: str, graph: OperationGraph, target: Pricing) -> LayerScores:
    hidden = graph.hidden[name]
    return LayerScores(
        name=name,
        kind=hidden.kind,
        weight_shape=hidden.weight_shape,
        considered=1,
        candidates=(Candidate(family=DENSE, structure=None, cost=hidden_cost(name, graph, target)),),
        refused=hidden.reason,
    )


def _refused(
    name: str, layer: nn.Module, calls: Sequence[Call], target: Pricing, reason: str, elsewhere: int
) -> LayerScores:
    cost = refused_cost(layer, calls, target, elsewhere=elsewhere)
    return LayerScores(
        name=name,
        kind=type(layer).__name__,
        weight_shape=weight_shape(layer),
        considered=1,
        candidates=(Candidate(family=DENSE, structure=None, cost=cost),),
        refused=reason,
    )


def _score_layer(
    name: str,
    layer: nn.Module,
    calls: Sequence[Call],
    prices: Sequence[_Price],
    *,
    moment: Tensor | None,
    families: Collection[str] | None,
) -> list[LayerScores]:
    weight = layer_weight(layer)
    shape = tuple(weight.shape[1:])
    as_it_is = Structure(factors=(Factor(shape=shape),), ranks={})
    structures = list(enumerate_structures(shape, families))
    errors = WeightErrors(weight)
    of_weight = errors([structure for _, structure in structures])
    offered = [(*each, error) for each, error in zip(structures, of_weight, strict=True)]
    kept = [_worthwhile(as_it_is, offered, layer, calls, price) for price in prices]
    if moment is not None:
        refined = list(dict.fromkeys(c.structure for candidates in kept for c in candidates if c.structure is not None))
        of_output = dict(zip(refined, output_errors(errors, moment, refined), strict=True))
        kept = [
            [c if c.structure is None else _with_error(c, of_output[c.structure]) for c in candidates]
            for candidates in kept
        ]
    return [
        LayerScores(
            name=name,
            kind=type(layer).__name__,
            weight_shape=weight_shape(layer),
            considered=len(offered) + 1,
            candidates=tuple(candidates),
        )
        for candidates in kept
    ]


def _worthwhile(
    as_it_is: Structure,
    offered: Sequence[tuple[str, Structure, float]],
    layer: nn.Module,
    calls: Sequence[Call],
    price: _Price,
) -> list[Candidate]:
    """Price a layer as it is, and with every structure; return it first, then those that nothing beats."""
    dense = Candidate(family=DENSE, structure=None, cost=price(as_it_is, layer, calls))
    priced = [
        _with_error(Candidate(family=family, structure=structure, cost=price(structure, layer, calls)), error)
        for family, structure, error in offered
    ]
    return [dense, *(candidate for candidate in undominated([dense, *priced]) if candidate.structure is not None)]


def _with_error(candidate: Candidate, error: float) -> Candidate:
    # Until sensitivities are measured, a layer's loss is its squared relative error: all layers count alike.
    return candidate.model_copy(update={"relative_error": error, "predicted_loss": error**2})
