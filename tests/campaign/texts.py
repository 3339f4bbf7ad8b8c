"""Faults of what users write: jobs, profiles, devices, command lines."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from pathlib import Path
from random import Random
from unittest import mock

import sekron_edge as se
from sekron_edge import cli
from sekron_edge.devices import load_profile
from sekron_edge.measurement import user_devices
from sekron_edge.pipeline import load_config
from tests.campaign.faults import text_altered
from tests.campaign.subjects import Subject

_PROFILES = Path(se.__file__).parent / "profiles"


_JOB = """
name = "net"
task = "classification"
seed = 1

[model]
factory = "net.py:make"
weights = "weights.safetensors"
args = { width = 8, layers = [1, 2] }

[data]
source = "folder"
path = "images"
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]

[target]
profile = "raspberry-pi-4"
runtime = "litert"
formats = ["litert", "executorch"]
precisions = ["fp32", "int8"]

[budget]
latency_ms = "0.5x"
accuracy_drop = 0.01

[finetune]
epochs = 2
batch_size = 16

[plan]
only = ["backbone.*"]
"""


def job_file(folder: Path) -> Subject:
    """A job's file, written wrongly."""
    (folder / "net.py").write_text("import torch\n\n\ndef make(width, layers):\n    return torch.nn.Linear(width, 2)\n")
    path = folder / "job.toml"
    path.write_text(_JOB)
    return Subject(folder, lambda: load_config(path), (path,), text_altered)


def profile(folder: Path) -> Subject:
    """A device's profile, written wrongly."""
    names = ("raspberry-pi-5.toml", "stm32f746.toml", "iphone-15.toml", "pixel-8.toml")
    for name in names:
        shutil.copyfile(_PROFILES / name, folder / name)
    return Subject(
        folder,
        lambda: [load_profile(folder / name) for name in names],
        tuple(folder / name for name in names),
        text_altered,
    )


def devices_file(folder: Path) -> Subject:
    """devices.toml, written wrongly."""
    path = folder / "devices.toml"
    path.write_text('[board]\nhost = "pi.local"\nuser = "pi"\n\n[phone]\nhost = "1234"\ncool_celsius = 40\n')

    def use() -> object:
        with mock.patch.dict(os.environ, {"SEKRON_EDGE_DEVICES": str(path)}):
            return user_devices()

    return Subject(folder, use, (path,), text_altered)


def command_line(folder: Path) -> Subject:
    """A command line, written wrongly."""
    (folder / "job.toml").write_text(_JOB)
    (folder / "x.json").write_text("{}")
    (folder / "bundle").mkdir()
    (folder / "bundle" / "manifest.json").write_text('{"name": "a web app"}')
    words = [
        "run", "plan", "export", "verify", "sign", "bench", "measurements", "profiles", "list", "show", "check",
        "compare", "--out", "--json", "--device", "--frontier", "--macs", "0.5x", "-1", "nan", "ssh:", "adb:x", "local",
        "raspberry-pi-4", "raspbery-pi-4", str(folder / "job.toml"), str(folder / "absent"), str(folder / "bundle"),
        str(folder), str(folder / "x.json"), "", "--", "--trusted", "--key", "--precision", "int9", "--shape", "1,a",
        "os:getcwd", "absent.py:make", "99999999999999999999", "--format", "\0", "é",
    ]  # fmt: skip
    given: list[str] = []

    def harm(drawn: Random) -> None:
        given[:] = [drawn.choice(words) for _ in range(drawn.randrange(1, 6))]

    def use() -> object:
        stream = io.StringIO()
        with (
            mock.patch.object(sys, "argv", ["sekron-edge", *given]),
            contextlib.redirect_stdout(stream),
            contextlib.redirect_stderr(stream),
            contextlib.chdir(folder),
            mock.patch.dict(os.environ, {"SEKRON_EDGE_CACHE": str(folder / "cache")}),
        ):
            try:
                cli.main()
            except SystemExit as ended:
                return given, ended.code, stream.getvalue()
        return given, 0, stream.getvalue()

    def sound(found: tuple[list[str], int, str]) -> bool:
        _, code, said = found
        return code in (0, 2, 3, 4, 5) and "Traceback" not in said and (code == 0 or bool(said.strip()))

    return Subject(folder, use, harm=harm, sound=sound, ours=(folder / "cache", folder / "dist"))
