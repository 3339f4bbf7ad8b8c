"""Noise that verification would refuse is acted on before a file is made."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sekron_edge.pipeline import _noise
from sekron_edge.pipeline._noise import LEAST_SNR_DB, quiet_enough
from sekron_edge.quantization import report_quantization, simulated, verifiable_snr_db


class Said:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def loud() -> nn.Module:
    """The second layer's large and small channels cancel: its output is noise in eight bits."""
    torch.manual_seed(0)
    first, second = nn.Linear(8, 16), nn.Linear(16, 8)
    with torch.no_grad():
        first.weight[8:] = first.weight[:8]
        first.weight *= 100
        first.bias[:8] += 0.5
        second.weight[:, 8:] = -second.weight[:, :8]
    return nn.Sequential(first, second, nn.Linear(8, 4)).eval()


def job(calibration: torch.Tensor, formats: tuple[str, ...]) -> Any:
    return SimpleNamespace(
        calibration_inputs=(calibration,), target=SimpleNamespace(formats=formats, precisions=("int8",))
    )


def test_as_few_layers_as_it_takes_are_kept_in_float() -> None:
    model, x = loud(), torch.randn(64, 8)
    report = report_quantization(model, (x,))
    assert verifiable_snr_db(model, (x,)) < LEAST_SNR_DB
    said = Said()
    quiet = quiet_enough(model, job(x, ("litert", "executorch")), report, said)  # type: ignore[arg-type]
    assert quiet.kept
    assert 0 < len(quiet.keep_float) < 3
    assert verifiable_snr_db(model, (x,), quiet.keep_float) >= LEAST_SNR_DB
    assert all(name in said.lines[0] for name in quiet.keep_float)
    rounded = simulated(model, (x,), quiet.keep_float)
    with torch.no_grad():
        assert float((rounded(x) - model(x)).square().sum() / model(x).square().sum()) < 10 ** (-LEAST_SNR_DB / 10)


def test_what_is_quiet_or_cannot_be_helped_stays_as_it_is() -> None:
    model, x = loud(), torch.randn(64, 8)
    report, said = report_quantization(model, (x,)), Said()
    assert quiet_enough(model, job(x, ("litert", "coreml")), report, said) is report  # type: ignore[arg-type]
    assert "coreml keeps no layers in float" in said.lines[0]
    torch.manual_seed(1)
    plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    report = report_quantization(plain, (x,))
    said = Said()
    assert quiet_enough(plain, job(x, ("litert",)), report, said) is report  # type: ignore[arg-type]
    assert not said.lines
    assert _noise.LEAST_SNR_DB > 15
