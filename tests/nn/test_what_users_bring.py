"""What users bring goes through, or ends in one error that names it and the remedy; nothing of theirs is changed."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from sekron_edge import pytrees
from sekron_edge.data import referenced
from sekron_edge.errors import ConfigError, ExportError
from sekron_edge.nn import admitted, capture, exportable, flattened, outputs_for

X = torch.ones(1, 4)
HERE = r"test_what_users_bring\.py, line \d+"

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*quantiz.*")


class Net(nn.Module):
    """A linear layer, and a forward of the test's own."""

    def __init__(self, forward: Callable[..., Any] = lambda net, x: net.layer(x), **held: Any) -> None:
        super().__init__()
        self.layer: Any = nn.Linear(4, 4)
        self.body = forward
        for name, value in held.items():
            setattr(self, name, nn.Buffer(value) if isinstance(value, Tensor) else value)

    def forward(self, x: Tensor, **more: Any) -> Any:
        return self.body(self, x, **more)


@dataclasses.dataclass
class Answer:
    logits: Tensor


class ModelOutput(OrderedDict[str, Tensor]):
    """As other packages have, and PyTorch does not know."""


# --- models


def wrapped() -> dict[str, nn.Module]:
    inner = Net()
    inner.layer = torch.compile(inner.layer)
    parallel = Net()
    parallel.layer = nn.DataParallel(parallel.layer)
    return {
        "compiled": cast(nn.Module, torch.compile(Net())),
        "parallel": nn.DataParallel(Net()),
        "both": nn.DataParallel(cast(nn.Module, torch.compile(Net()))),
        "a compiled layer": inner,
        "a parallel layer": parallel,
    }


@pytest.mark.parametrize("kind", wrapped())
def test_wrappers_are_taken_off(kind: str) -> None:
    model = wrapped()[kind].eval()
    before = list(dict(model.named_modules()))
    exposed = se.expose_layers(model, X)
    assert [name for name, _ in exposed.named_modules()] == ["", "layer"]
    assert isinstance(flattened(model, X).model, Net)
    assert list(dict(model.named_modules())) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_copied_to_float32(dtype: torch.dtype) -> None:
    model = Net().to(dtype).eval()
    flat = flattened(model, X.to(dtype))
    assert flat.model(*flat.inputs).dtype == flat.inputs[0].dtype == torch.float32
    assert model.layer.weight.dtype == dtype
    single = Net()
    assert exportable(single) is single


def test_a_model_whose_shapes_come_with_the_first_run_is_left_without_them() -> None:
    model = nn.Sequential(nn.LazyConv2d(2, 1), nn.LazyBatchNorm2d())
    exposed = se.expose_layers(model, torch.ones(1, 3, 4, 4))
    assert [type(layer) for layer in exposed.children()] == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(model[0], nn.LazyConv2d)


def models_refused() -> dict[str, tuple[Any, str]]:
    scripted = Net()
    scripted.layer = torch.jit.script(nn.Linear(4, 4))
    quantized = torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear})
    packed = Net()
    packed.layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    return {
        "a function": (lambda x: x, "must give a torch.nn.Module; it gave function"),
        "a class": (Net, "must give a torch.nn.Module; it gave type"),
        "none": (None, "must give a torch.nn.Module; it gave NoneType"),
        "a scripted layer": (scripted, "layer 'layer' of the model gives a TorchScript module"),
        "a quantized layer": (quantized, "layer 'layer' of the model is quantized already .*precisions"),
        "integer weights": (packed, "layer.weight of the model holds int8, as weights of quantized layers"),
        "no values": (Net().to("meta"), "layer.weight of the model has no values .*load the weights"),
    }


@pytest.mark.parametrize("kind", models_refused())
def test_models_that_cannot_be_changed_are_refused(kind: str) -> None:
    model, said = models_refused()[kind]
    for refused in (lambda: admitted(model), lambda: se.expose_layers(model, X), lambda: flattened(model, X)):
        with pytest.raises(ConfigError, match=said):
            refused()


# --- inputs

INPUTS: dict[str, tuple[Any, str]] = {
    "none": (None, r"must hold a tensor; got NoneType\. It takes \(x, \*\*more\)"),
    "a number": (3, "must hold a tensor; got int"),
    "an array": (np.ones((1, 4), np.float32), r"they hold a ndarray: make it a tensor with torch\.from_numpy"),
    "a dataclass": ({"x": Answer(X)}, r"they hold an Answer at x: .*register_dataclass\(Answer\)"),
    "no samples": (torch.ones(0, 4), r"dense tensors with values; got one of shape \(0, 4\)"),
    "sparse": (X.to_sparse(), "dense tensors .*sparse_coo"),
    "without values": (X.to("meta"), "dense tensors .*on meta"),
    "another size": (torch.ones(1, 5), r"Net does not take inputs of shape \(1, 5\): .*; it takes \(x, "),
    "another type": (X.long(), r"Net does not take inputs of shape \(1, 4\): .*same dtype"),
    "too many": ((X, X), r"Net does not take inputs of shape \(1, 4\), \(1, 4\): .*positional arguments"),
    "an unknown keyword": ({"x": X, "y": X}, r"Net does not take inputs .*unexpected keyword argument 'y'"),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_that_are_not_taken_are_said(kind: str) -> None:
    inputs, said = INPUTS[kind]
    for refused in (se.expose_layers, flattened):
        with pytest.raises(ConfigError, match=said):
            refused(Net(), inputs)


def test_keyword_arguments_constants_and_gradients_are_taken() -> None:
    model = Net(lambda net, x, *, scale: net.layer(x) * scale)
    given = {"x": X.clone().requires_grad_(), "scale": 2}
    flat = flattened(model, given)
    torch.testing.assert_close(flat.model(*flat.inputs)[0], model.layer(X) * 2)
    assert not flat.inputs[0].requires_grad
    assert (flat.input_places, flat.output_places) == (("x",), ("output_0",))
    with pytest.raises(ConfigError, match="missing 1 required keyword-only argument: 'scale'"):
        flattened(model, X)


# --- what the model does


def fails(net: Net, x: Tensor) -> Tensor:
    raise KeyError("no such head")


def changes_its_input(net: Net, x: Tensor) -> Any:
    x.view(-1)[:2].mul_(2)
    return net.layer(x)


RUNS: dict[str, tuple[Callable[..., Any], str]] = {
    "fails": (fails, rf"{HERE}: KeyError: 'no such head'"),
    "changes its input": (changes_its_input, r"changes its input 0 in place.*clone"),
    "gives nothing": (lambda net, x: None, "must give tensors; it gave NoneType"),
    "gives a number": (lambda net, x: 3.0, "must give tensors; it gave float"),
    "gives a word": (lambda net, x: "cat", "must give tensors; it gave str"),
    "gives a dataclass": (lambda net, x: Answer(net.layer(x)), r"it gave an Answer: .*register_dataclass\(Answer\)"),
    "gives one in a dict": (lambda net, x: {"y": x + 1, "of": Answer(net.layer(x))}, "it gave an Answer at of"),
    "gives a dict of its own": (lambda net, x: ModelOutput(y=net.layer(x)), "it gave a ModelOutput: make it a .*dict"),
}


@pytest.mark.parametrize("kind", RUNS)
def test_what_a_model_gives_is_said(kind: str) -> None:
    forward, said = RUNS[kind]
    inputs = X.clone()
    for refused in (se.expose_layers, flattened):
        with pytest.raises(ConfigError, match=said):
            refused(Net(forward), inputs)
    assert torch.equal(inputs, X)


def branches(net: Net, x: Tensor) -> Tensor:
    y: Tensor = net.layer(x)
    if y.sum() > 0:
        return y
    return -y


def counts(net: Any, x: Tensor) -> Any:
    net.runs += 1
    return net.layer(x)


def rebinds(net: Any, x: Tensor) -> Any:
    net.runs = net.runs + 1
    return net.layer(x) + net.runs


GRAPHS: dict[str, tuple[Callable[..., Any], str]] = {
    "branches": (branches, rf"cannot be traced by torch\.export at .*{HERE}: .*depends on the values.*torch\.where"),
    "takes a value out": (
        lambda net, x: net.layer(x) * float(x.sum()),
        rf"{HERE}: .*depends on the values of a tensor",
    ),
    "leaves for NumPy": (lambda net, x: torch.from_numpy(net.layer(x).detach().numpy()), rf"{HERE}: .*NumPy"),
    "selects": (lambda net, x: net.layer(x)[x > 0], r"how many values index gives depends on .*raw heads"),
    "counts": (counts, "changes its own runs when it runs, .*no memory between runs"),
    "rebinds": (rebinds, "changes its own runs when it runs, .*no memory between runs"),
    "drops": (lambda net, x: F.dropout(net.layer(x)), rf"random numbers .* in dropout \(.*{HERE}\): .*self\.training"),
    "draws": (lambda net, x: net.layer(x) + torch.randn_like(x), "random numbers .* in randn_like"),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_what_no_file_can_hold_is_said_with_the_line(kind: str) -> None:
    forward, said = GRAPHS[kind]
    model: Any = Net(forward, runs=torch.zeros(1))
    for refused in (se.expose_layers, capture):
        with pytest.raises(ExportError, match=said):
            refused(model.eval(), (X,))
    assert model.runs.item() == 0


def notes(net: Any, x: Tensor) -> Any:
    net.noted = net.layer(x)
    return net.noted


QUIET: dict[str, Callable[..., Any]] = {
    "no dropout now": lambda net, x: F.dropout(net.layer(x), 0.5, net.training),
    "attention": lambda net, x: F.scaled_dot_product_attention(net.layer(x), x, x),
    "in place on its own": lambda net, x: net.layer(x).mul_(2),
    "notes": notes,
    "nested": lambda net, x: (net.layer(x), (None, {"twice": x * 2, "size": x.shape, "version": 3})),
}


@pytest.mark.parametrize("kind", QUIET)
def test_what_files_can_hold_goes_through(kind: str) -> None:
    model = Net(QUIET[kind]).train()
    exposed = se.expose_layers(model, X)
    capture(exposed, X)
    assert model.training
    torch.testing.assert_close(pytrees.tensors(outputs_for(exposed, X)), pytrees.tensors(outputs_for(model, X)))


def test_hooks_are_kept() -> None:
    model, seen = Net(), []
    model.layer.register_forward_hook(lambda _, __, output: output * 2)
    model.layer.register_forward_hook(lambda _, __, output: seen.append(tuple(output.shape)))
    exposed = se.expose_layers(model, X)
    torch.testing.assert_close(exposed(X), model(X))
    assert set(seen) == {(1, 4)}


# --- outside of jobs


class Inputs(Dataset[Tensor]):
    """Samples without labels."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((4,), float(index))


def test_a_task_without_labels_judges_nothing_by_itself() -> None:
    task, model = se.unlabelled(Inputs()), Net()
    with pytest.raises(ConfigError, match=r"no labels to judge a model by; .*referenced\(task, original\)"):
        se.evaluate(model, task)
    assert se.evaluate(model.double(), referenced(task, exportable(model).eval())) == pytest.approx(1)
    with pytest.raises(ConfigError, match=rf"{HERE}: KeyError"):
        se.evaluate(Net(fails), referenced(task, model.float()))
    with pytest.raises(ConfigError, match=r"must give a torch\.nn\.Module"):
        se.evaluate(lambda x: x, referenced(task, model))  # type: ignore[arg-type]
