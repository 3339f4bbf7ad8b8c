"""The folder in which an unfinished job keeps its state, so that a killed one can go on."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from sekron_edge import files
from sekron_edge.errors import ConfigError
from sekron_edge.planner import Plan


class _State(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    settings: dict[str, str]


class Work:
    """State beside the bundle, in ``OUT.work``: settings, the plan, checkpoints, artifacts.

    Args:
        out: Path of the future bundle.
        settings: Everything that decides the result, as text; a job goes on only with the same settings.
        resume: Whether to go on with unfinished work.

    Raises:
        ConfigError: If there is unfinished work that is not to be resumed, or that has other settings.
    """

    def __init__(self, out: Path, settings: dict[str, str], *, resume: bool) -> None:
        self.folder = out.parent / f"{out.name}.work"
        self._plan = self.folder / "plan.json"
        state = self.folder / "job.json"
        if self._plan.is_file():
            self._require_same(state, settings, resume)
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        files.write_text(state, _State(settings=settings).model_dump_json(indent=2) + "\n")

    @property
    def artifacts(self) -> Path:
        """Folder of exported files."""
        return self.folder / "artifacts"

    @property
    def checkpoints(self) -> Path:
        """Folder of fine-tuning's checkpoints."""
        return self.folder / "finetune"

    @property
    def rounding_checkpoints(self) -> Path:
        """Folder of the checkpoints of distillation against rounding."""
        return self.folder / "finetune-int8"

    def plan(self) -> Plan | None:
        """Return the plan of the unfinished job, if it had one.

        Raises:
            ConfigError: If the file is of another release.
        """
        if not self._plan.is_file():
            return None
        try:
            return Plan.model_validate_json(self._plan.read_bytes())
        except ValidationError as error:
            raise ConfigError(f"{self._plan} is of another release; remove {self.folder} to start again") from error

    def keep(self, plan: Plan) -> None:
        """Write the plan down."""
        files.write_text(self._plan, plan.to_json())

    def remove(self) -> None:
        """Remove the folder: the bundle is complete."""
        shutil.rmtree(self.folder)

    def _require_same(self, state: Path, settings: dict[str, str], resume: bool) -> None:
        if not resume:
            raise ConfigError(
                f"an unfinished job is in {self.folder}: go on with --resume, or remove that folder to start again"
            )
        try:
            before = _State.model_validate_json(state.read_bytes()).settings
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{state} cannot be read; remove {self.folder} to start again") from error
        changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if changed:
            raise ConfigError(
                f"the unfinished job in {self.folder} was started with another {', another '.join(changed)}; use the "
                "same, or remove that folder to start again"
            )
