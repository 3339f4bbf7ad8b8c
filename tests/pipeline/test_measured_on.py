"""A job for a board that is reached: calibrated there, its plans and its artifacts measured there."""

import runpy
from pathlib import Path

import pytest
import torch

import sekron_edge as se
from sekron_edge.artifacts import get_exporter
from sekron_edge.data import Photographs, photographs, super_resolution
from sekron_edge.measurement import MeasurementStore
from tests.measurement.boards import Board
from tests.measurement.conftest import at_board, board  # noqa: F401 - fixtures
from tests.narrowing import present

MODEL = Path(__file__).parents[2] / "examples" / "models" / "edsr.py"


@pytest.mark.slow
def test_a_job_for_a_board_is_calibrated_and_measured_there(
    at_board: Board,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    at_board.write(board=at_board.settings("real"))
    monkeypatch.setattr(type(get_exporter("litert")), "primitive_count", 120)
    images = photographs()
    task = super_resolution(
        Photographs(images.train[:1], images.heldout[:1]), crop=32, crops=64, calibration_samples=16
    )
    torch.manual_seed(0)
    model = runpy.run_path(str(MODEL))["EDSR"](channels=16, blocks=1).eval()
    done = se.compress(
        model,
        (task.calibration[0][0][None],),
        profile="raspberry-pi-5",
        task=task,
        threads=1,
        out=tmp_path / "out",
        budget=se.Budget(macs="0.6x", latency_ms="20x"),  # how fast this machine is at the moment is not the question
        formats=["litert"],
        runs=5,
        measured_on="ssh:board",
        finetuning=se.TrainConfig(optimizer="adam", epochs=1, batch_size=16, learning_rate=1e-3, weight_decay=0),
    )
    assert "operations measured on" in done.plan.latency_source
    assert "estimated" not in done.plan.latency_source
    (delivery,) = done.manifest.deliveries
    measured, dense = present(delivery.measured), present(delivery.dense_measured)
    assert (measured.device, dense.device) == ("ssh:board", "ssh:board")
    result = next(one for one in done.manifest.results if one.entry == "latency_ms")
    assert result.how.startswith("measured on ssh:board, median: ")
    assert "processes" in result.how
    assert result.found == measured.median_ms
    report = (done.bundle / "report.html").read_text()
    assert "measured on ssh:board" in report
    assert "measured here" not in report
    (calibration,) = MeasurementStore.default().calibrations()
    assert calibration.timings >= 120  # each kind of operation has some at least
    assert {kept.measurement.device for kept in MeasurementStore.default().measurements()} == {"ssh:board"}
