"""Settings: what is wrong with one is one error that names it, from Python and from a file alike."""

from collections.abc import Callable

import pytest

import sekron_edge as se
from sekron_edge.errors import ConfigError
from sekron_edge.planner import LayerSelection
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.settings import Settings
from sekron_edge.verification import Tolerance

WRONG: list[tuple[Callable[..., Settings], dict[str, object], str]] = [
    (se.Budget, {"accuracy_drop": "x"}, r"Budget: accuracy_drop: .* valid number.*, got 'x'"),
    (se.Budget, {"accuracy_drop": -0.1}, r"Budget: accuracy_drop: .* greater than or equal to 0, got -0.1"),
    (se.Budget, {"latency": 3}, r"unknown key 'budget.latency'; did you mean 'latency_ms'"),
    (se.FinetuneConfig, {"epochs": 0}, r"FinetuneConfig: epochs: .* greater than or equal to 1, got 0"),
    (se.TrainConfig, {"epoch": 3}, r"TrainConfig: unknown key 'epoch'; did you mean 'epochs'\?"),
    (se.TrainConfig, {"optimizer": "adamw"}, r"optimizer: .*'sgd' or 'adam', got 'adamw'"),
    (se.TrainConfig, {"epochs": 0, "alpha": 2}, r"epochs: .*; alpha: .*, got 2"),
    (QuantizationConfig, {"epochs": -2}, r"QuantizationConfig: epochs: .*, got -2"),
    (LayerSelection, {"only": 3}, r"LayerSelection: only: .* tuple, got 3"),
    (Tolerance, {"snr_db": 3.0}, r"agreement: Field required, .*; metric: Field required"),
]


@pytest.mark.parametrize(("settings", "given", "said"), WRONG)
def test_a_wrong_value_is_one_error_that_names_it(
    settings: Callable[..., Settings], given: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        settings(**given)
    assert "pydantic" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_section_within_another_keeps_the_way_to_its_key() -> None:
    from pydantic import ValidationError

    class Job(Settings):
        train: se.TrainConfig

    with pytest.raises(ConfigError, match=r"unknown key 'train.epoch'; did you mean 'epochs'\?"):
        Job(train={"epoch": 3})
    with pytest.raises(ValidationError):  # files' readers say which file it is
        Job.model_validate({"train": {"epochs": 0}})
