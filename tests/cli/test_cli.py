"""The commands: help, exit codes, and single artifacts."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sekron_edge as se
from sekron_edge.cli import _app, main
from tests import commands
from tests.narrowing import present


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Path | str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sekron-edge", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["plan"],
        ["export"],
        ["verify"],
        ["bench"],
        ["profiles"],
        ["profiles", "calibrate"],
        ["measurements", "export"],
        ["doctor"],
    ],
)
def test_every_command_explains_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, *command, "--help")
    assert code == 0
    assert "Usage" in out


def test_what_is_wrong_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cases: list[tuple[list[str | Path], str]] = [
        (["run", tmp_path / "none.toml"], "none.toml cannot be read"),
        (["bench", tmp_path], "neither a bundle nor a file"),
        (["bench", tmp_path / "absent.tflite"], "there is no"),
        (["export", "net:make", "--shape", "1,x"], "1,3,224,224"),
        (["export", "net:make", "--shape", "1,0"], "at least 1"),
        (
            ["export", "net:make", "--shape", "1,3", "--precision", "fp16", "--keep-float", "0"],
            "keeps no layers in float in fp16; these do: executorch in int8, litert in int8",
        ),
        (
            ["export", "net:make", "--shape", "1,3", "--precision", "fp64"],
            "fp32, fp16, int16x8, int8, int8-weights, int4-weights",
        ),
        (["profiles", "show", "pixel-9"], "did you mean pixel-8"),
    ]
    for arguments, message in cases:
        code, out, err = run(monkeypatch, capsys, *arguments)
        assert (code == 4) == (arguments == ["bench", tmp_path]), arguments
        assert code in (2, 4)
        assert out == ""
        assert message in err.replace("\n", " ")
        assert "Traceback" not in err
    code, _, err = run(monkeypatch, capsys, "verify", tmp_path)
    assert code == 4
    assert "no complete bundle" in err


def test_the_code_is_that_of_the_process(tmp_path: Path) -> None:
    cases: list[tuple[list[object], int]] = [
        (["profiles", "show", "pixel-9"], 2),
        (["verify", tmp_path], 4),
        (["verify", tmp_path / "absent"], 2),
    ]
    for arguments, code in cases:
        process = commands.start(*arguments, cache=tmp_path)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, "")
        assert err.startswith("error: ") or "\nerror: " in err


def test_a_full_disk_and_an_interruption_are_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "dist/model.tflite")

    def stopped() -> None:
        raise KeyboardInterrupt

    for application, message, expected in [(full, "No space left", 2), (stopped, "--resume", 130)]:
        monkeypatch.setattr(_app, "app", application)
        code, _, err = run(monkeypatch, capsys)
        assert code == expected
        assert message in err


@pytest.mark.slow
def test_a_model_is_exported_in_every_format_and_measured(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(1))\n"
    )

    def printed(*arguments: str | Path) -> Any:
        # In a process of its own, where nothing but the result may reach standard output.
        command = [sys.executable, "-m", "sekron_edge", *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    made = printed("export", f"{tmp_path / 'net.py'}:make", "--shape", "1,3,8,8", "--out", tmp_path / "out")
    assert [artifact["format"] for artifact in made] == ["coreml", "executorch", "litert", "tflm"]
    made = ("export", f"{tmp_path / 'net.py'}:make", "--shape", "1,3,8,8", "--precision", "fp16", "--out", tmp_path)
    code, half, err = commands.run(*made, "--json")
    assert code == 0, err
    assert [artifact["format"] for artifact in json.loads(half)] == ["coreml", "litert"]
    code, out, err = commands.run("bench", tmp_path / "out" / "model_fp32.tflite", "--runs", 4, "--json")
    assert code == 0, err
    (timing,) = json.loads(out)["measurements"]
    assert timing["median_ms"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "macs"),
    [("ad_fc", 264_192), ("kws_dscnn", 2_656_768), ("vww_96", 7_489_664), ("ic_resnet8", 12_501_632)],
)
def test_files_of_others_are_benched_for_microcontrollers(
    network: str, macs: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.environ.get("SEKRON_EDGE_DATA")
    if folder is None:
        pytest.skip("SEKRON_EDGE_DATA is not set: MLPerf Tiny's networks are not here")
    path = Path(folder) / "mlperf_tiny" / f"{network}_int8.tflite"
    code, out, _ = run(monkeypatch, capsys, "bench", path, "--format", "tflm", "--profile", "stm32l4r5", "--json")
    (needs,) = json.loads(out)["footprints"]
    assert code == 0
    assert (needs["flash_bytes"], needs["macs"]) == (path.stat().st_size, macs)
    assert 0 < needs["ram_bytes"] < 640 * 1024
    assert needs["latency_range_ms"][0] < needs["latency_ms"] < needs["latency_range_ms"][1]
    code, out, _ = run(monkeypatch, capsys, "bench", path, "--format", "ethos-u:u65-256", "--json")
    (compiled,) = json.loads(out)["footprints"]
    assert code == 0
    assert compiled["artifact_name"] == f"{network}_int8.u65-256.tflite"
    # Faster than one multiply-accumulate a cycle, slower than all 256 at once.
    assert macs / 256 < compiled["cycles"] < macs
    assert not list(path.parent.glob("*.u65-256.*"))


@pytest.mark.slow
def test_bench_of_what_does_not_fit_or_is_nothing_of_the_kind_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rubbish = tmp_path / "net.tflite"
    rubbish.write_text("no model at all")
    for arguments, code, said in [
        ((rubbish, "--format", "tflm"), 2, "no .tflite file"),
        ((rubbish, "--format", "coreml"), 2, "coreml takes no files .*ethos-u, tflm do"),
        ((tmp_path / "absent.tflite", "--format", "tflm"), 2, "there is none"),
    ]:
        found, _, err = run(monkeypatch, capsys, "bench", *arguments)
        assert found == code, err
        assert re.search(said, " ".join(err.split()))
    wide = nn.Sequential(nn.Conv2d(3, 96, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.randn(8, 3, 64, 64)
    made = se.export(wide, (x[:1],), format="tflm", precision="int8", out=tmp_path, calibration=(x,))
    found, _, err = run(monkeypatch, capsys, "bench", made.path, "--format", "tflm", "--profile", "nano-33-ble-sense")
    assert found == 3
    assert f"{present(made.arena).size_bytes:,} bytes" in " ".join(err.split())
    assert "CONV_2D" in err
