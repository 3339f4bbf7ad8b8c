"""Where a command runs: languages that know no umlaut, no home, readers that leave, and little memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sekron_edge.cli import _app
from tests import commands

COMMAND = [sys.executable, "-m", "sekron_edge"]
PLAIN = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_a_terminal_without_unicode_is_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "Grüße aus Köln ☃"
    folder.mkdir()
    environment = {**os.environ, **PLAIN, "SEKRON_EDGE_CACHE": str(folder)}
    listed = subprocess.run([*COMMAND, "profiles", "list"], capture_output=True, env=environment, check=True)
    assert b"pixel-8" in listed.stdout
    refused = subprocess.run([*COMMAND, "verify", folder], capture_output=True, env=environment, check=False)
    assert refused.returncode == 4
    assert b"Traceback" not in refused.stderr
    assert b"error: " in refused.stderr


def test_without_a_home_there_is_still_an_answer() -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HOME", "XDG", "SEKRON", "USER"))}
    done = subprocess.run([*COMMAND, "measurements", "list"], capture_output=True, text=True, env=kept, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2)


def test_a_reader_may_leave(tmp_path: Path) -> None:
    environment = {**os.environ, "SEKRON_EDGE_CACHE": str(tmp_path)}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "profiles", "list"], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False
    )
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "def make():\n    return torch.nn.Conv2d(1, 64, 3, padding=1, bias=False)\n"
    )  # fmt: skip
    arguments = ["export", f"{tmp_path / 'net.py'}:make", "--shape", "1,1,9000,9000", "--format", "litert"]
    done = subprocess.run(
        [*COMMAND, *arguments, "--out", tmp_path / "out"], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_of_any_part_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy() -> None:
        raise error

    monkeypatch.setattr(_app, "app", greedy)
    code, _, said = commands.run()
    assert code == 2
    assert "there is not enough memory" in said
