"""An arm64 board, emulated: the same bundle through the same ssh, LiteRT's aarch64 wheel, outputs verified there.

Not part of `make test`: `make test-emulated` makes the root file system (``$SEKRON_EDGE_ARM64``) and runs this.
"""

import os
import shlex
from pathlib import Path

import pytest

from sekron_edge.bundle import probes
from sekron_edge.errors import DeviceError
from sekron_edge.latency import calibrate
from sekron_edge.measurement import Conditions, MeasurementStore, measure_fleet, open_device
from tests.bundle.test_bundle import Made, made  # noqa: F401 - a fixture
from tests.measurement.boards import Board
from tests.measurement.conftest import at_board, board  # noqa: F401 - fixtures
from tests.narrowing import present

ROOT = Path(os.environ["SEKRON_EDGE_ARM64"])


@pytest.fixture
def arm64(at_board: Board) -> Board:  # noqa: F811
    python = at_board.folder / "arm64 python"
    root = shlex.quote(str(ROOT))
    python.write_text(
        "#!/bin/sh\n"
        f"export SEKRON_EDGE_TEST_BOARD={shlex.quote(str(at_board.folder))} PYTHONPATH={root}/opt/wheels\n"
        f'exec qemu-aarch64-static -L {root} {root}/usr/bin/python3 "$@"\n'
    )
    python.chmod(0o755)
    at_board.write(board=at_board.settings(python=[str(python)]), said=at_board.settings(emulated=True))
    return at_board


def test_a_bundle_runs_there_and_its_time_is_none_of_a_devices(arm64: Board, made: Made) -> None:  # noqa: F811
    report = measure_fleet(probes(made[0]), [open_device("ssh:board")], Conditions(runs=10))
    assert len(report.measurements) == 1, report.failures
    (found,) = report.measurements
    assert found.format == "litert"
    assert found.environment.machine == "aarch64"
    assert "dB" in present(found.verified)
    assert found.emulated
    assert any("emulated" in remark for remark in found.remarks)
    assert MeasurementStore.default().measurements() == []
    (failure,) = report.failures
    assert "model_fp32.pte failed at the stage 'runtime'" in failure.message


def test_nothing_is_calibrated_there(arm64: Board, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="ssh:said is emulated"):
        calibrate("litert", store=MeasurementStore(tmp_path / "x.sqlite"), device=open_device("ssh:said"))
