"""Settings of the wrong kind, and tasks that are none, are one error each, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

import sekron_edge as se
from sekron_edge.errors import ConfigError, DataError, SekronEdgeError
from sekron_edge.nn import unmerged_blocks
from sekron_edge.training import finetune, train
from tests.cost_models import MacsAreTime


class Samples(Dataset[Tensor]):
    """So many samples of one shape, without labels."""

    def __init__(self, count: int, shape: tuple[int, ...] = (4,)) -> None:
        self.count, self.shape = count, shape

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.ones(self.shape)


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.ones(4)])


MODEL, X, TASK = nn.Linear(4, 4), torch.ones(1, 4), se.unlabelled(Samples(4))

SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "profile": ({"profile": 3}, "profile must be the id of a device, as 'raspberry-pi-5', or a TOML file; got int 3"),
    "no profile": ({"profile": None}, "profile must be the id of a device.* got None"),
    "out": ({"out": None}, "out must be the folder of the bundle; got None"),
    "budget": ({"budget": {"macs": "0.5x"}}, r"budget must be a sekron_edge\.Budget, as Budget\(macs=.* got dict"),
    "budget as a word": ({"budget": "0.5x"}, r"budget must be a sekron_edge\.Budget.* got str '0.5x'"),
    "seed": ({"seed": "1"}, "seed must be a whole number of at least 0; got str '1'"),
    "seed below zero": ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
    "threads": ({"threads": 0}, "threads must be a whole number of at least 1; got 0"),
    "runs": ({"runs": 2.5}, r"runs must be a whole number of at least 1; got float 2\.5"),
    "formats": ({"formats": "litert"}, r'formats must be a list of names, as \["litert"\]; got str'),
    "no formats": ({"formats": []}, "formats must be a list of names.* got list"),
    "precisions": ({"precisions": "int8"}, r'precisions must be a list of names, as \["fp32"\]'),
    "runtime": ({"runtime": ["litert"]}, "runtime must be the name of a format.* got list"),
    "finetuning": ({"finetuning": {"epochs": 2}}, r"finetuning must be a sekron_edge\.FinetuneConfig; got dict"),
    "selection": ({"selection": ["head"]}, r"selection must be a sekron_edge\.planner\.LayerSelection; got list"),
    "name": ({"name": "a/b"}, "name must be the stem .* without a folder; got 'a/b'"),
    "task": ({"task": None}, r"task must be a sekron_edge\.Task, which holds data and metric; got None"),
    "data as a task": ({"task": Samples(2)}, r"task must be a sekron_edge\.Task.* got Samples"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    given, said = SETTINGS[kind]
    usual: dict[str, Any] = {"profile": "host", "task": TASK, "out": tmp_path / "bundle", "formats": ["litert"]}
    with pytest.raises(ConfigError, match=said):
        se.compress(MODEL, X, **{**usual, **given})
    if given.keys() <= {"profile", "task", "budget", "seed", "threads", "runtime", "selection"}:
        with pytest.raises(ConfigError, match=said):
            se.plan(MODEL, X, **{"profile": "host", "task": TASK, **given})
    assert not list(tmp_path.iterdir())


OTHERS: dict[str, tuple[Callable[[], object], str]] = {
    "evaluate": (lambda: se.evaluate(MODEL, None), "task must be a sekron_edge.Task"),  # type: ignore[arg-type]
    "train": (lambda: train(MODEL, None), "task must be a sekron_edge.Task"),  # type: ignore[arg-type]
    "finetune": (lambda: finetune(MODEL, MODEL, None), "task must be a sekron_edge.Task"),  # type: ignore[arg-type]
    "decompose": (lambda: se.decompose(MODEL, {}), "plan must be what sekron_edge.plan"),  # type: ignore[arg-type]
    "verify": (lambda: se.verify("m.tflite", MODEL, X), "artifact must be what sekron_edge.export"),  # type: ignore[arg-type]
    "export": (lambda: se.export(MODEL, X, format=None, out="."), "format must be one of "),  # type: ignore[arg-type]
    "export to nothing": (lambda: se.export(MODEL, X, format="litert", out=None), "out must be a folder"),  # type: ignore[arg-type]
}

COST: Any = MacsAreTime()
OTHERS |= {
    "score without a model": (lambda: se.score(cast(Any, None), X, COST), "must give a torch.nn.Module"),
    "score without inputs": (lambda: se.score(MODEL, None, COST), "inputs of Linear must hold a tensor"),
    "score other inputs": (lambda: se.score(MODEL, torch.ones(1, 5), COST), r"does not take inputs of shape \(1, 5\)"),
    "score without costs": (lambda: se.score(MODEL, X, cast(Any, None)), "cost_model must be a latency model"),
    "score in no precision": (lambda: se.score(MODEL, X, COST, precision="int3"), "precision must be one of fp32, "),
    "score one family": (lambda: se.score(MODEL, X, COST, families="cp"), r'families must be a list .*\["tucker2"\]'),
    "factorize": (lambda: se.factorize(MODEL, cast(Any, 3)), "structure_for must be a function of a layer; got int 3"),
    "factorize by rank": (
        lambda: se.factorize(nn.Sequential(MODEL), cast(Any, lambda *_: 3)),
        "the structure of layer '0' must be a sekron_edge.Structure; got int 3",
    ),
    "replace": (lambda: se.replace_layers(MODEL, cast(Any, ["0"])), "structures must be a dict from layers' names"),
    "decompose a tensor": (
        lambda: se.decompose_tensor(torch.ones(2, 2), cast(Any, 1)),
        "must be a sekron_edge.Structure",
    ),
    "measure": (
        lambda: se.measure(cast(Any, "m.tflite")),
        "artifact must be what sekron_edge.export returned; got str",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_arguments_of_another_kind_are_refused(kind: str) -> None:
    call, said = OTHERS[kind]
    with pytest.raises(ConfigError, match=said):
        call()


def test_models_are_scored_and_distilled_in_other_precisions_and_wrappers() -> None:
    double = nn.DataParallel(nn.Sequential(nn.Linear(4, 4)).double())
    plan = se.score(double, X, COST, calibration=torch.rand(8, 4)).plan(
        se.Budget(macs="0.6x"), profile="host", runtime="litert"
    )
    small = se.decompose(double, plan)
    assert [layer.name for layer in plan.layers] == ["0"]
    tuned = finetune(small, double, TASK, config=se.FinetuneConfig(epochs=1, threads=1), progress=False)
    assert {parameter.dtype for parameter in tuned.parameters()} == {torch.float32}


TASKS: dict[str, tuple[Any, str]] = {
    "no training samples": (replace(TASK, train=Samples(0)), "has no train samples"),
    "none held out": (replace(TASK, heldout=Samples(0)), "has no heldout samples"),
    "a stream": (replace(TASK, calibration=Stream()), "calibration samples .* with a length and indices; got Stream"),
    "a generator": (replace(TASK, train=cast(Any, iter([1]))), "train samples .* with a length"),
    "another size": (
        se.unlabelled(Samples(4, (5,))),
        r"like the example inputs, input \(1, 4\) float32; a batch of 2 is input \(2, 5\) float32",
    ),
}


@pytest.mark.parametrize("kind", TASKS)
def test_samples_that_are_not_the_models_are_refused(kind: str, tmp_path: Path) -> None:
    task, said = TASKS[kind]
    with pytest.raises(DataError, match=said):
        se.compress(MODEL, X, profile="host", task=task, out=tmp_path / "bundle", formats=["litert"])


def test_weights_that_hold_nan_are_named(tmp_path: Path) -> None:
    broken = nn.Linear(4, 4)
    broken.bias.data[1] = float("nan")
    with pytest.raises(SekronEdgeError, match=r"Linear gives NaN for the example inputs, and its bias hold NaN: load"):
        se.compress(broken, X, profile="host", task=TASK, out=tmp_path / "bundle", formats=["litert"])
    log = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Threshold(9, float("nan")))
    with pytest.raises(SekronEdgeError, match=r"Sequential gives NaN .* its weights hold none: give real inputs"):
        se.compress(log, X, profile="host", task=TASK, out=tmp_path / "bundle", formats=["litert"])


class Branched(nn.Module):
    """As RepVGG's blocks: two branches in training, one convolution after that."""

    def __init__(self, merged: bool = False) -> None:
        super().__init__()
        self.wide = nn.Conv2d(2, 2, 3, padding=1)
        self.branches = nn.ModuleList() if merged else nn.ModuleList([nn.BatchNorm2d(2), nn.BatchNorm2d(2)])

    def switch_to_deploy(self) -> None:
        """Merge the branches."""


class Variational(nn.Module):
    """Has a method of such a name that is something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))

    def reparameterize(self, mean: Tensor, variance: Tensor) -> Tensor:
        return mean + variance


def test_branches_that_were_not_merged_are_hinted_at() -> None:
    found = unmerged_blocks(nn.Sequential(nn.Conv2d(2, 2, 1), Branched(), Branched()))
    assert str(found).startswith("hint: Branched has switch_to_deploy(), ")
    assert "(2 of them, first '1')" in str(found)
    assert unmerged_blocks(nn.Sequential(Branched(merged=True), Variational())) is None
