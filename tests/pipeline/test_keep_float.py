"""What a job keeps in float is refused early, chosen once, and priced as it is delivered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import sekron_edge as se
from sekron_edge.artifacts import Precision
from sekron_edge.bundle import read_manifest, verify_bundle
from sekron_edge.devices import load_profile
from sekron_edge.errors import ConfigError
from sekron_edge.exporters.tflite._graph import read_file
from sekron_edge.pipeline import Job, LogProgress, Target
from sekron_edge.pipeline._floats import chosen_floats, keeps_budget, require_floats_possible
from sekron_edge.pipeline._output import claimed
from sekron_edge.pipeline._work import Work
from sekron_edge.planner import InFloat, Pricing, score_for_all
from sekron_edge.quantization import QuantizationConfig
from tests.cost_models import CallsAreTime, MacsAreTime
from tests.pipeline.test_wrong_settings import Samples


class Images(Dataset[Tensor]):
    """So many images of noise."""

    def __init__(self, count: int) -> None:
        self.images = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class Vectors(Dataset[Tensor]):
    """So many vectors of noise."""

    def __init__(self, count: int) -> None:
        self.vectors = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> Tensor:
        return self.vectors[index]


def target(*precisions: Precision, formats: tuple[str, ...] = ("litert",)) -> Target:
    return Target.choose(load_profile("host"), runtime="litert", formats=formats, precisions=precisions or ("int8",))


def job(**config: object) -> Job:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    settings = QuantizationConfig(**config)
    return Job.prepared(model, torch.ones(1, 4), se.unlabelled(Samples(4)), target(), quantization=settings)


@pytest.mark.parametrize("wanted", ["auto", ("0",)])
def test_a_target_that_cannot_keep_layers_is_refused_before_anything(wanted: object) -> None:
    config = QuantizationConfig(keep_float=wanted)
    with pytest.raises(ConfigError, match=r"precisions are fp32; add int8"):
        require_floats_possible(target("fp32"), config)
    with pytest.raises(ConfigError, match="coreml keeps no layers in float in int8; these do: executorch"):
        require_floats_possible(target("int8", formats=("litert", "coreml")), config)
    require_floats_possible(target("int8", "fp32", formats=("litert", "executorch")), config)
    require_floats_possible(target("fp32", formats=("coreml",)), QuantizationConfig())


def test_layers_that_are_not_there_are_refused_with_the_job() -> None:
    with pytest.raises(ConfigError, match="no layer is named '3'"):
        job(keep_float=["0", "3"])
    with pytest.raises(ConfigError, match="all 2 layers are named"):
        job(keep_float=["0", "2"])
    assert job(keep_float=["0"]).quantization.named_floats == ("0",)


def test_a_choice_is_made_once_and_kept(tmp_path: Path) -> None:
    own = job(keep_float="auto")
    with claimed(tmp_path / "out", resume=False) as output:
        work = Work(output, own.settings())
        assert work.floats() is None
        work.keep_floats(("2",))
        assert chosen_floats(own, own.model, work, LogProgress(), affords=bool) == ("2",)
        named = replace(own, quantization=QuantizationConfig(keep_float=("0",)))
        assert chosen_floats(named, own.model, work, LogProgress(), affords=bool) == ("0",)


def test_what_costs_most_and_is_affordable_is_chosen_where_int8_costs_more_than_the_tolerance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():  # one channel far larger than the rest, and hardly used
        model[2].get_parameter("weight")[0] *= 1000
        model[2].get_parameter("bias")[0] = 1000
        model[4].get_parameter("weight")[:, 0] /= 1000
    task = se.unlabelled(Vectors(64))
    chosen = []
    for tolerance, most in ((0.01, 3), (0.01, 1), (1.0, 3)):
        config = QuantizationConfig(keep_float="auto", tolerance=tolerance)
        own = Job.prepared(model, torch.randn(1, 8), task, target(), quantization=config)
        with claimed(tmp_path / f"{tolerance} {most}", resume=False) as output:
            work = Work(output, own.settings())
            affords = partial(lambda most, floats: len(floats) <= most, most)
            chosen.append(chosen_floats(own, own.model, work, LogProgress(), affords=affords))
            assert work.floats() == chosen[-1]
    assert chosen == [("2", "4"), ("2",), ()]


def test_kept_layers_cost_what_they_cost_in_float_and_two_conversions() -> None:
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)), torch.randn(1, 8)
    floats = Pricing(CallsAreTime(), "fp32", converted=True)
    mixed = Pricing(MacsAreTime(), "int8", in_float=InFloat(frozenset({"1"}), floats))
    rounded, kept = score_for_all(model, x, [Pricing(MacsAreTime(), "int8"), mixed])
    first, second = (layer.candidates[0].cost for layer in kept.layers)
    assert first == rounded.layers[0].candidates[0].cost
    assert second.latency_ms == pytest.approx(3e-3)  # the layer, and a conversion before and after it
    assert second.artifact_bytes == 4 * second.parameters
    assert second.activation_bytes == 4 * rounded.layers[1].candidates[0].cost.activation_bytes


def test_layers_in_float_must_leave_the_budget_kept(tmp_path: Path) -> None:
    """Four bytes a weight: the plan's artifact has room for the small layer, and not for the large one."""
    model = nn.Sequential(nn.Linear(8, 400), nn.ReLU(), nn.Linear(400, 4), nn.ReLU(), nn.Linear(4, 4))
    scores = score_for_all(model, torch.randn(1, 8), [Pricing(MacsAreTime(), "int8")])[0]
    plan = scores.plan(se.Budget(), profile="host", runtime="litert")
    own = Job.prepared(
        model, torch.randn(1, 8), se.unlabelled(Vectors(16)), target(), budget=se.Budget(artifact_bytes=16_000),
        quantization=QuantizationConfig(keep_float="auto"),
    )  # fmt: skip
    with claimed(tmp_path / "out", resume=False) as output:
        work = Work(output, own.settings())
        assert [keeps_budget(own, plan, work, floats) for floats in (("4",), ("0",))] == [True, False]


@pytest.mark.slow
def test_a_job_plans_prices_and_delivers_what_it_keeps(
    calibrated: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for precision in ("int8", "fp32"):
        calibrated(tmp_path / "cache", precision)
    monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    task = se.unlabelled(Images(24), calibration=Images(12), heldout=Images(8))
    done = se.compress(
        model, torch.randn(1, 3, 12, 12), profile="host", task=task, out=tmp_path / "bundle", formats=["litert"],
        precisions=["int8", "int16x8"], budget=se.Budget(macs="0.6x"), runs=4,
        finetuning=se.FinetuneConfig(epochs=1, batch_size=8, threads=1),
        quantization=QuantizationConfig(keep_float=("2",), epochs=0),
    )  # fmt: skip
    manifest = read_manifest(done.bundle)
    assert [one.artifact.keep_float for one in manifest.deliveries] == [("2",), ()]
    assert manifest.quantization is not None
    assert manifest.quantization.kept
    assert manifest.quantization.keep_float == ("2",)
    layers = {layer.name: layer for layer in done.plan.layers}
    assert layers["2"].structure is not None
    assert layers["2"].cost.artifact_bytes > 4 * layers["2"].cost.parameters
    kinds = [tensor.kind for tensor in read_file(done.bundle / manifest.deliveries[0].artifact.path).main.tensors]
    assert {"INT8", "FLOAT32"} <= set(kinds)
    assert "as delivered" in (done.bundle / "report.html").read_text()
    assert verify_bundle(done.bundle).comparisons
