"""Rescaled factors compute the same, and quantize better."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from sekron_edge.artifacts import export, get_exporter, predict
from sekron_edge.exporters.tflite import _convert
from sekron_edge.nn import FactorizedConv, equalize_labels_, factorize
from tests.narrowing import layer_at
from tests.strategies import factorized_structures


def uneven(name: str, groups: int = 1) -> nn.Module:
    """A layer whose labels have scales that differ a thousandfold."""
    torch.manual_seed(0)
    structure = factorized_structures()[name]
    model = nn.Sequential(nn.Conv2d(8 * groups, 12 * groups, 3, padding=1, groups=groups), nn.ReLU())
    layer = factorize(model.eval(), lambda *_: structure)
    scales = {label: torch.logspace(-1.5, 1.5, size).expand(groups, -1) for label, size in structure.ranks}
    layer_at(layer, "0", FactorizedConv).rescale_labels_(scales)
    return layer


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("name", factorized_structures())
def test_outputs_stay_and_ranges_become_alike(name: str, groups: int) -> None:
    model, x = uneven(name, groups), torch.randn(8, 8 * groups, 6, 6)
    structure = factorized_structures()[name]
    even = copy.deepcopy(model)
    equalize_labels_(even, [(x[:4],), (x[4:],)])
    torch.testing.assert_close(even(x), model(x), rtol=1e-4, atol=1e-5)
    before, after = (layer_at(each, "0", FactorizedConv).label_ranges(x) for each in (model, even))
    for label, ranges in after.items():
        assert ranges.shape == (groups, structure.rank(label))
        spread = (ranges.amax() / ranges.amin()).item()
        assert spread <= (before[label].amax() / before[label].amin()).item() + 1e-3
        if len(structure.ranks) == 1:
            assert spread == pytest.approx(1, rel=1e-3)


@pytest.mark.slow
def test_integers_lose_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = uneven("tucker2"), torch.randn(64, 8, 6, 6)

    def noise(name: str) -> float:
        artifact = export(model, (x[:1],), format="litert", precision="int8", out=tmp_path, name=name, calibration=(x,))
        (found,) = predict(get_exporter("litert").load(artifact), artifact, [x.numpy()])
        expected = model(x)
        return float((torch.from_numpy(found) - expected).norm() / expected.norm())

    with_it = noise("with")
    monkeypatch.setattr(_convert, "equalize_labels_", lambda *_: None)
    assert with_it < 0.5 * noise("without")
