"""The place of a bundle, and of the unfinished job beside it: of one job at a time, and never anybody else's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from sekron_edge import documents, files
from sekron_edge.bundle import require_replaceable, signed
from sekron_edge.errors import ConfigError

STATE, PLAN, FLOATS = "job.json", "plan.json", "floats.json"
ARTIFACTS, CHECKPOINTS, ROUNDING_CHECKPOINTS = "artifacts", "finetune", "finetune-int8"
RECONSTRUCTED = "reconstructed.safetensors"
_LOCK = ".lock"
# What jobs keep in their folder; only these are ever removed, and the state, by which the folder is known, last.
_OURS = (
    PLAN, FLOATS, ARTIFACTS, RECONSTRUCTED, f"{RECONSTRUCTED}.sha256", CHECKPOINTS, ROUNDING_CHECKPOINTS, STATE, _LOCK,
)  # fmt: skip


class State(BaseModel):
    """What is written first into a job's folder: everything that decides its result, as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    settings: dict[str, str]


@dataclass(frozen=True)
class Output:
    """Folders that this process may write to.

    Attributes:
        bundle: Of the bundle; made whole at the end.
        work: Of the unfinished job, ``OUT.work``.
        sign: File of the key that signs the bundle, if any.
    """

    bundle: Path
    work: Path
    sign: Path | None = None

    @property
    def nearest(self) -> Path:
        """Folder of a bundle that does not keep its budget, ``OUT.nearest``: `bundle` holds only those that do."""
        return self.bundle.with_name(f"{self.bundle.name}.nearest")

    def clear(self) -> None:
        """Remove what a job kept in its folder; what others put there stays."""
        for name in _OURS:
            path = self.work / name
            if name != _LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove the job's folder: the bundle is complete."""
        if _foreign(self.work):
            self.clear()
            return
        files.remove_folder(self.work)


@contextmanager
def claimed(out: Path, *, resume: bool, sign: Path | None = None) -> Iterator[Output]:
    """Claim the folder of a bundle for one job, before anything is computed.

    Args:
        out: Path of the future bundle.
        resume: Whether an unfinished job may be there.
        sign: File of the key that will sign the bundle; tried now, not at the end of the work.

    Raises:
        ConfigError: If another job is writing there, something is in the way that no job made, an unfinished job is
            there that is not to be resumed, or the key cannot sign.
        MissingDependencyError: If there is a key, and OpenSSH is absent.
    """
    bundle = out.expanduser().resolve()
    output = Output(bundle, bundle.with_name(f"{bundle.name}.work"), sign)
    if sign is not None:
        signed(b"", sign)
    for place in (bundle, output.nearest):
        require_replaceable(place)
    _require_ours(output.work)
    if (output.work / PLAN).is_file() and not resume:
        raise ConfigError(
            f"an unfinished job is in {output.work}: go on with --resume, or remove that folder to start again"
        )
    output.work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output.work / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"another job is writing to {bundle}: wait until it has ended, or give another folder"
        ) from None
    try:
        files.recover(bundle)
        files.recover(output.nearest)
        files.recover(output.work)
        yield output
    finally:
        if output.work.is_dir() and not (output.work / STATE).is_file():
            (output.work / _LOCK).unlink(missing_ok=True)
            if not any(output.work.iterdir()):
                output.work.rmdir()
        lock.release()


def _require_ours(work: Path) -> None:
    """Refuse a folder that no job made: one that holds something, but no job's state."""
    if not work.exists() or _has_state(work):
        return
    if not work.is_dir() or _foreign(work) or (work / STATE).exists() or (work / PLAN).exists():
        raise ConfigError(
            f"{work} is where an unfinished job would be kept, and no job made it: move it away, or give "
            "another folder for the bundle"
        )


def _has_state(work: Path) -> bool:
    try:
        documents.read_record(work / STATE, State, ConfigError, "")
    except ConfigError:
        return False
    return True


def _foreign(work: Path) -> list[Path]:
    """Return what no job put into its folder."""
    return [path for path in work.iterdir() if path.name not in _OURS and not files.is_unfinished(path)]
