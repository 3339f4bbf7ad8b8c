"""What differs is found and named; what agrees is measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import sekron_edge as se
from sekron_edge import artifacts
from sekron_edge.artifacts import Artifact, Precision, Session, export, get_exporter
from sekron_edge.errors import ConfigError, VerificationError
from sekron_edge.structure import tucker2
from sekron_edge.task import Task
from sekron_edge.verification import (
    TOLERANCES,
    Comparison,
    Tolerance,
    _first_layer,
    compare,
    score_artifact,
    verify,
)  # fmt: skip
from sekron_edge.verification._first_layer import Taps
from sekron_edge.verification._noise import noise_like, of_other_phases
from tests.narrowing import layer_at


def network() -> nn.Module:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return se.replace_layers(dense, {"2": tucker2((16, 16, 3, 3), 8, 8)}).eval()


@given(st.floats(-80, 80), st.integers(1, 50))
def test_the_ratio_of_signal_to_noise_is_the_one_that_was_mixed(decibels: float, samples: int) -> None:
    random = np.random.default_rng(samples)
    signal, noise = random.standard_normal((2, samples, 4))
    scale = np.linalg.norm(signal) / np.linalg.norm(noise) * 10 ** (-decibels / 20)
    assert compare([signal], [signal + scale * noise]).snr_db == pytest.approx(decibels, abs=1e-3)


def test_what_is_not_finite_is_never_within_any_tolerance() -> None:
    wanted = np.ones((2, 3))
    for value in (np.nan, np.inf, -np.inf):
        got = wanted.copy()
        got[0, 0] = value
        found = compare([wanted], [got])
        assert found.snr_db < 0
        found.model_dump_json()


def test_equal_outputs_are_perfect_and_shapes_must_be_equal() -> None:
    assert compare([np.zeros((1, 3))], [np.zeros((1, 3))]).snr_db == 200
    with pytest.raises(VerificationError, match="shape"):
        compare([np.zeros((1, 3))], [np.zeros((1, 4))])


def test_classes_at_each_place_are_decisions_and_colours_are_none() -> None:
    """Of a task with three classes; an image of three channels is no decision where the task has no classes."""
    wanted = np.zeros((2, 3, 4, 4))
    wanted[:, 1] = 1
    other = wanted.copy()
    other[0, 2, 0, :2] = 2
    assert compare([wanted], [other]).agreement is None
    assert compare([wanted], [other], classes=10).agreement is None
    assert compare([wanted], [other], classes=3).agreement == 30 / 32
    assert compare([wanted[:, :, 0, 0]], [other[:, :, 0, 0]]).agreement == 0.5


@pytest.mark.parametrize(("decibels", "held"), [(20.9, True), (14.9, False)])
def test_decisions_on_noise_are_close_calls_and_its_outputs_must_be_near(decibels: float, held: bool) -> None:
    """An int8 model of a barely trained network: 20.9 dB on noise, where 86 % of the decisions agreed."""
    found = Comparison(samples=359, max_error=0.1, mean_error=0.01, snr_db=decibels, agreement=0.86)
    assert not found.within(TOLERANCES["int8"])
    assert found.within(TOLERANCES["int8"].of_outputs()) is held
    assert str(TOLERANCES["int8"].of_outputs()) == "at least 15 dB"


@pytest.mark.slow
def test_an_artifact_whose_close_calls_on_noise_fall_otherwise_is_verified(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10, bias=False)).eval()
    drawn = torch.randn(8192, 3, 4, 4)
    with torch.no_grad():
        first, second = model(drawn).topk(2).values.unbind(1)
    decided = drawn[(first - second).topk(512).indices]
    artifact = export(model, (drawn[:1],), format="litert", precision="int8", out=tmp_path, calibration=(decided,))
    strict = Tolerance(snr_db=15.0, agreement=1.0, metric=0.0)
    check = verify(artifact, model, [decided], tolerance=strict, calibration=(decided,))
    assert check.real.agreement == 1.0
    assert not check.noise.within(strict)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "executorch"])
def test_an_artifact_that_agrees_is_described(format: str, tmp_path: Path) -> None:
    model = network()
    artifact = export(model, (torch.randn(1, 3, 12, 12),), format=format, out=tmp_path)
    check = verify(artifact, model, [torch.randn(8, 3, 12, 12)])
    assert check.real.samples == check.noise.samples == 8
    assert check.real.agreement == 1.0
    assert check.real.snr_db > 80
    with pytest.raises(ConfigError, match="must hold a tensor"):
        verify(artifact, model, [])


@pytest.mark.slow
def test_a_file_of_another_model_is_told_from_a_wrong_export(tmp_path: Path) -> None:
    model = network()
    artifact = export(model, (torch.randn(1, 3, 12, 12),), format="litert", out=tmp_path)
    with torch.no_grad():
        layer_at(model, "0", nn.Conv2d).weight.mul_(2)
    with pytest.raises(VerificationError, match="of another model"):
        verify(artifact, model, [torch.randn(4, 3, 12, 12)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "seconds", "said"),
    [("2", 120, "is '2' "), ("6", 120, "is '6' "), ("2", 0, "is one from '0' to one after the last layer")],
)
def test_the_first_layer_that_an_exporter_gets_wrong_is_named(
    wrong: str, seconds: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty:
        """LiteRT with one layer exported wrongly, as a converter with a fault would."""

        def __init__(self) -> None:
            self.true = get_exporter("litert")
            self.name, self.suffix, self.precisions = "faulty", self.true.suffix, self.true.precisions

        def export(
            self, model: nn.Module, example_inputs: tuple[torch.Tensor, ...], *, precision: Precision, path: Path,
            calibration: object = None,
        ) -> Artifact:  # fmt: skip
            import copy

            altered = copy.deepcopy(model)
            inside = dict(altered.named_modules())
            names = (
                f"model.{wrong}.layer",
                f"model.{wrong}",
                wrong,
            )  # watched, before or after what is watched, or whole
            layer = next(inside[name] for name in names if name in inside)
            layer.register_forward_hook(lambda _, __, output: output * 1.1)
            artifact = self.true.export(altered, example_inputs, precision=precision, path=path)
            return artifact.model_copy(update={"format": "faulty"})

        def load(self, artifact: Artifact, *, threads: int = 1) -> Session:
            return self.true.load(artifact, threads=threads)

    monkeypatch.setattr(_first_layer, "_LONGEST_S", seconds)
    monkeypatch.setitem(artifacts._registry._registered, "faulty", Faulty())
    model = network()
    artifact = export(model, (torch.randn(1, 3, 12, 12),), format="faulty", out=tmp_path)
    with pytest.raises(VerificationError, match=f"first layer that differs {said}"):
        verify(artifact, model, [torch.randn(4, 3, 12, 12)])


def test_noise_is_like_the_real_inputs_and_within_their_range() -> None:
    real = torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0)) ** 8  # dark: as wide as it is bright
    noise = noise_like(real, torch.Generator().manual_seed(0))
    assert noise.shape == real.shape
    assert real.min() <= noise.min() < noise.max() <= real.max()
    assert noise.std() == pytest.approx(float(real.std()), rel=0.5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 9))
def test_noise_like_images_has_their_means_and_spectra(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    real = torch.rand(2, 3, *sizes, generator=generator, dtype=torch.float64)
    noise = of_other_phases(real, generator)
    axes = tuple(range(2, real.ndim))
    spectra = [torch.fft.fftn(each, dim=axes).abs() for each in (real, noise)]
    torch.testing.assert_close(*spectra)
    torch.testing.assert_close(noise.mean(axes), real.mean(axes))


@pytest.mark.parametrize("strict", [False, True])
def test_a_layer_is_watched_by_all_tracers(strict: bool) -> None:
    model, x = network(), torch.randn(1, 3, 8, 8)
    part = torch.export.export(Taps(model, ["1"]).eval(), (x,), strict=strict).module()
    torch.testing.assert_close(part(x)[0], model[:2](x))  # type: ignore[index]


@pytest.mark.slow
def test_an_int8_artifact_is_verified_and_scored(tmp_path: Path) -> None:
    model, pixels = network(), torch.rand(64, 3, 12, 12)
    calibration = (pixels[:32],)
    artifact = export(
        model, (pixels[:1],), format="litert", precision="int8", out=tmp_path, calibration=calibration
    )  # fmt: skip
    check = verify(artifact, model, [pixels[32:]], calibration=calibration)
    assert min(check.real.snr_db, check.noise.snr_db) > 20
    with torch.no_grad():
        labels = model(pixels).argmax(1)
    task = classification_of(TensorDataset(pixels, labels))
    assert score_artifact(artifact, task) >= 0.9
    others = classification_of(TensorDataset(pixels, (labels + 1) % 10))
    assert score_artifact(artifact, others) <= 0.1


def classification_of(samples: TensorDataset) -> Task:
    """A task whose every split is these samples."""
    return Task(
        name="classification", train=samples, calibration=samples, heldout=samples, loss=F.cross_entropy,
        distillation=F.mse_loss, metric=lambda: MulticlassAccuracy(num_classes=10, average="micro"),
        metric_name="accuracy",
    )  # fmt: skip
