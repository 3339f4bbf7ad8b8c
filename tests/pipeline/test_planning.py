"""What a trial teaches: limits are tightened, or widened, only where that can help."""

import pytest

from sekron_edge.budget import Budget
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.pipeline._planning import _nearest, _tightened


def test_what_no_correction_is_known_for_is_asked_for_with_some_to_spare() -> None:
    aims = Budget(latency_ms=10, peak_memory_bytes=1000, macs=50)
    tighter = _tightened(aims, {"latency_ms": 2.0, "peak_memory_bytes": 1.25})
    assert tighter == aims.with_limits({"peak_memory_bytes": 1000 * 0.95 / 1.25})
    assert _tightened(aims, {"latency_ms": 2.0, "peak_memory_bytes": 1.0}) is None


@pytest.mark.parametrize(
    ("name", "value", "tried"),
    [
        pytest.param("latency_ms", 110.0, True, id="a prediction that trials correct"),
        pytest.param("latency_ms", 130.0, False, id="too far"),
        pytest.param("macs", 110.0, False, id="a count"),
        pytest.param("parameters", 110.0, False, id="another count"),
        pytest.param("peak_memory_bytes", 110.0, False, id="a maximum"),
    ],
)
def test_the_nearest_plan_is_tried_only_where_a_prediction_may_be_wrong(name: str, value: float, tried: bool) -> None:
    limits = Budget.model_validate({name: 100})
    widened = _nearest(InfeasibleBudgetError("", nearest=[{name: value}]), limits)
    assert widened == (limits.with_limits({name: value * (1 + 1e-6)}) if tried else None)
