"""Models of any inputs and outputs are scored, judged and planned."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sekron_edge.budget import Budget
from sekron_edge.planner import Calibration, PlanEvaluator, measure_sensitivity, score
from tests.cost_models import MacsAreTime

Outputs = Mapping[str, Tensor | tuple[Tensor, Tensor]]


class Fused(nn.Module):
    """Two inputs, one of them a pair; a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.sensors, self.head = nn.Conv2d(3, 8, 3), nn.Linear(12, 8), nn.Linear(8, 8)

    def forward(self, image: Tensor, sensors: tuple[Tensor, Tensor]) -> Outputs:
        seen = self.image(image).relu().mean((2, 3))
        felt = self.sensors(torch.cat(sensors, 1)).relu()
        return {"logits": self.head(seen + felt), "features": (seen, felt)}


def moved(outputs: Outputs, reference: Outputs) -> Tensor:
    first, second = outputs["logits"], reference["logits"]
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    return (first - second).square().mean()


def test_a_model_of_several_inputs_and_a_dict_of_outputs_is_planned() -> None:
    torch.manual_seed(0)
    model = Fused().eval()
    given = (torch.randn(24, 3, 8, 8), (torch.randn(24, 5), torch.randn(24, 7)))
    calibration = Calibration(model, given)
    scores = score(model, (given[0][:1], (given[1][0][:1], given[1][1][:1])), MacsAreTime(), calibration=given)
    scores = measure_sensitivity(scores, calibration, divergence=moved)
    evaluator = PlanEvaluator(Calibration(model, given), divergence=moved, evaluated_on=given)
    plan = evaluator.plan(scores, Budget(macs="0.6x"), profile="test", runtime="test")
    assert [layer.name for layer in plan.layers] == ["image", "sensors", "head"]
    assert plan.divergence is not None
    assert plan.divergence > 0
    by_keyword = {"image": given[0], "sensors": given[1]}
    assert Calibration(model, by_keyword).moments(["head"])["head"].equal(calibration.moments(["head"])["head"])
