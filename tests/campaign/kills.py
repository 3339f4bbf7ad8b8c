"""Kill a small job before one of its steps, and go on: ``python -m tests.campaign.kills --points 200``.

A step is whatever changes a file of the job's: an opening to write, a name given or taken away, as the interpreter
announces it. Each time the job is killed with SIGKILL before a step that no other point has, from scoring to packing,
and done again with ``--resume``. What it made must be the same bytes as without a kill, and nothing else may be left.

The latency model is calibrated once, before: a measurement is not the same twice, and plans hold its predictions.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sekron_edge import files
from sekron_edge.latency import cached_calibration
from sekron_edge.pipeline import load_config, run_job

_NETWORK = """
import torch


def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.Flatten(), torch.nn.Linear(128, 3)
    )
"""
_JOB = """
name = "small"
task = "regression"

[model]
factory = "net.py:make"

[data]
path = "rows.npz"

[target]
profile = "iphone-15"
formats = ["coreml"]

[budget]
macs = "0.7x"

[train]
epochs = 1
threads = 1

[finetune]
epochs = 2
threads = 1
"""
# What says when it was made.
_DATED = ("manifest.json", "manifest.json.sha256", "report.html", "sbom.cdx.json")
_CHANGES = ("os.rename", "os.replace", "os.remove", "os.unlink", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
            "os.truncate", "os.chmod", "shutil.rmtree", "shutil.copyfile", "shutil.move")  # fmt: skip
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["sekron_edge.pipeline", "sekron_edge.exporters.coreml", "coremltools", "lightning"])


@dataclass(frozen=True)
class Place:
    """A job's files, in a folder of their own.

    Attributes:
        folder: Has the job, its data and its network; the bundle, its work and the cache come there.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.cache.mkdir(parents=True)
        for calibration in files.cache_folder().glob("latency-*"):
            shutil.copy(calibration, self.cache)
        drawn = np.random.default_rng(0)
        arrays: dict[str, Any] = {
            f"{split}_{kind}": drawn.normal(size=(64, *shape)).astype(np.float32)
            for split in ("train", "heldout")
            for kind, shape in (("inputs", (1, 8, 8)), ("targets", (3,)))
        }
        np.savez(self.folder / "rows.npz", **arrays)
        (self.folder / "net.py").write_text(_NETWORK)
        (self.folder / "job.toml").write_text(_JOB)

    @property
    def cache(self) -> Path:
        """The job's own, which holds the calibration and nothing else."""
        return self.folder / "cache"

    @property
    def out(self) -> Path:
        """The bundle."""
        return self.folder / "out"

    def made(self) -> dict[str, bytes]:
        """Return the contents of the bundle that do not say when it was made."""
        found = {path.relative_to(self.out).as_posix(): path.read_bytes() for path in files.files_below(self.out)}
        return {name: content for name, content in found.items() if name not in _DATED}

    def left(self) -> set[str]:
        """Return what is in the folder beside what was there, the bundle and the cache."""
        expected = {"rows.npz", "net.py", "job.toml", "out", "cache", "__pycache__"}
        return {path.name for path in self.folder.iterdir()} - expected


def job(folder: Path, kill_at: int | None, *, resume: bool, steps: Any) -> int:
    """Do the job in a process of its own; return its exit code.

    Args:
        folder: Of the job.
        kill_at: The step before which it is killed.
        resume: Go on with what is there.
        steps: A shared number; becomes that of its steps.
    """
    process = _PROCESSES.Process(target=_done, args=(folder, kill_at, resume, steps))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _done(folder: Path, kill_at: int | None, resume: bool, steps: Any) -> None:
    os.environ["SEKRON_EDGE_CACHE"] = str(folder / "cache")
    ours = f"{folder}{os.sep}"

    def step(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (writes or event in _CHANGES) or not str(args[0]).startswith(ours):
            return
        if steps.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.value += 1

    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        config = load_config(folder / "job.toml")
        sys.addaudithook(step)
        run_job(config, folder / "out", resume=resume)


def survives(folder: Path, kill_at: int, whole: dict[str, bytes]) -> str | None:
    """Kill a job before a step, and go on; return what is wrong then, if anything is."""
    place = Place(folder)
    ended = job(folder, kill_at, resume=False, steps=_PROCESSES.Value("i", 0))
    if ended != -signal.SIGKILL:
        return f"it was not killed, but ended with {ended}"
    ended = job(folder, None, resume=True, steps=_PROCESSES.Value("i", 0))
    if ended != 0:
        return f"it did not go on: exit code {ended}"
    if changed := sorted(name for name, content in place.made().items() if whole.get(name) != content):
        return f"{changed[0]} is another one"
    if missing := whole.keys() - place.made().keys():
        return f"{min(missing)} is missing"
    return f"{min(left)} was left behind" if (left := place.left()) else None


@contextlib.contextmanager
def uninterrupted() -> Iterator[tuple[Path, int, dict[str, bytes]]]:
    """Yield a folder for jobs, the number of steps of one that nothing kills, and what it makes."""
    cached_calibration("litert")  # whose times stand for Core ML's here
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps = _PROCESSES.Value("i", 0)
        place = Place(folder / "whole")
        ended = job(place.folder, None, resume=False, steps=steps)
        assert ended == 0, ended
        assert not place.left()
        yield folder, steps.value, place.made()


def main() -> None:
    """Kill at points that are spread evenly over all steps."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=200)
    options.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at once")
    given = options.parse_args()
    console = Console(stderr=True)
    with uninterrupted() as (folder, steps, whole):
        console.print(f"a job of {steps} steps, {len(whole)} files")
        points = sorted({round(at * (steps - 1) / max(given.points - 1, 1)) for at in range(given.points)})

        def one(at: int) -> str | None:
            wrong = survives(folder / f"{at}", at, whole)
            shutil.rmtree(folder / f"{at}")
            console.print(f"killed before step {at}: {wrong or 'the same bytes'}")
            return wrong

        with ThreadPoolExecutor(given.jobs) as pool:
            wrong = [each for each in pool.map(one, points) if each is not None]
    console.print(f"{len(points)} kills, {len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
