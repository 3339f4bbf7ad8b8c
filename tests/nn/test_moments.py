"""Second moments turn an error of a weight into the error of the layer's output."""

import pytest
import torch
from torch import Tensor, nn

from sekron_edge.nn import input_moments, layer_weight

LAYERS = [
    (nn.Linear(6, 5), (40, 6)),
    (nn.Linear(6, 5), (4, 10, 6)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (5, 4, 17)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 3), groups=2), (3, 4, 9, 11)),
    (nn.Conv2d(4, 6, 4, padding="same"), (3, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect"), (3, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (3, 4, 9, 8)),
    (nn.Conv3d(2, 3, (1, 2, 3), padding=1, stride=2), (2, 2, 5, 6, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_the_moment_gives_the_mean_square_of_the_output(layer: nn.Linear | nn.Conv2d, shape: tuple[int, ...]) -> None:
    layer = layer.double()
    x = torch.randn(shape, dtype=torch.float64)
    model = nn.Sequential(layer)
    (moment,) = input_moments(model, (x,), {"0": layer}).values()
    rows = layer_weight(layer).flatten(2)
    predicted = ((rows @ moment) * rows).sum()
    assert layer.bias is not None
    layer.bias.data.zero_()
    output = layer(x).detach()
    channels = 1 if isinstance(layer, nn.Linear) else output.shape[1]
    positions = output.numel() / (output.shape[-1] if isinstance(layer, nn.Linear) else channels)
    assert float(predicted) == pytest.approx(float(output.square().sum() / positions), rel=1e-9)


LARGE = [
    (nn.Conv1d(4, 6, 3, padding=1, stride=2), (3, 4, 30_000)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), groups=2), (3, 4, 200, 150)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1), (3, 4, 70, 60)),
]


@pytest.mark.parametrize(("layer", "shape"), LARGE, ids=[str(layer) for layer, _ in LARGE])
def test_some_places_of_large_images_stand_for_all_and_are_the_same_each_time(
    layer: nn.Module,
    shape: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.avg_pool1d(torch.randn(shape, generator=generator).flatten(2), 3, 1, 1).reshape(shape) + 0.5
    some, again = (input_moments(nn.Sequential(layer), (x,), {"0": layer})["0"] for _ in range(2))
    monkeypatch.setattr("sekron_edge.nn._moments._FEWEST_ROWS", 1e9)
    whole = input_moments(nn.Sequential(layer), (x,), {"0": layer})["0"]
    assert torch.equal(some, again)
    assert not torch.equal(some, whole)
    rows = layer_weight(layer).flatten(2).double()
    predicted, exact = (float(((rows @ moment) * rows).sum()) for moment in (some, whole))
    assert predicted == pytest.approx(exact, rel=0.05)


def test_the_model_stays_as_it_was_and_a_layer_that_never_runs_has_no_moment() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.used(x)
            return output

    model = Half().train()
    model.used.eval()
    found = input_moments(model, (torch.randn(4, 3),), {"used": model.used, "unused": model.unused})
    assert list(found) == ["used"]
    assert model.training
    assert not model.used.training
    assert not model.used._forward_pre_hooks
