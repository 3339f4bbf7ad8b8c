"""The state of an unfinished job, so that a killed one can go on."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sekron_edge import documents, files
from sekron_edge.errors import ConfigError
from sekron_edge.pipeline._output import (
    ARTIFACTS,
    CHECKPOINTS,
    FLOATS,
    PLAN,
    RECONSTRUCTED,
    ROUNDING_CHECKPOINTS,
    STATE,
    Output,
    State,
)
from sekron_edge.planner import Plan


class Floats(BaseModel):
    """The layers that a job chose to keep in float."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_float: tuple[str, ...]


class Work:
    """State beside the bundle, in ``OUT.work``: settings, the plan, checkpoints, artifacts.

    Args:
        output: Claimed by this process.
        settings: Everything that decides the result, as text; a job goes on only with the same settings.

    Raises:
        ConfigError: If there is unfinished work of other settings.
    """

    def __init__(self, output: Output, settings: dict[str, str]) -> None:
        self._output = output
        self.folder = output.work
        self._plan = self.folder / PLAN
        state = self.folder / STATE
        if self._plan.is_file():
            self._require_same(state, settings)
        else:
            output.clear()
        files.write_text(state, State(settings=settings).model_dump_json(indent=2) + "\n")

    @property
    def artifacts(self) -> Path:
        """Folder of exported files."""
        return self.folder / ARTIFACTS

    @property
    def reconstructed(self) -> Path:
        """File of the model that distillation starts from."""
        return self.folder / RECONSTRUCTED

    @property
    def checkpoints(self) -> Path:
        """Folder of fine-tuning's checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def rounding_checkpoints(self) -> Path:
        """Folder of the checkpoints of distillation against rounding."""
        return self.folder / ROUNDING_CHECKPOINTS

    def plan(self) -> Plan | None:
        """Return the plan of the unfinished job, if it had one.

        Raises:
            ConfigError: If the file is damaged, or of another release.
        """
        if not self._plan.is_file():
            return None
        remedy = f"it is damaged or of another release; remove {self.folder} to start again"
        return documents.read_record(self._plan, Plan, ConfigError, remedy)

    def keep(self, plan: Plan) -> None:
        """Write the plan down."""
        files.write_text(self._plan, plan.to_json())

    def floats(self) -> tuple[str, ...] | None:
        """Return the layers that the unfinished job chose to keep in float, if it had chosen.

        Raises:
            ConfigError: If the file is damaged.
        """
        kept = self.folder / FLOATS
        if not kept.is_file():
            return None
        return documents.read_record(kept, Floats, ConfigError, f"remove {self.folder} to start again").keep_float

    def keep_floats(self, names: tuple[str, ...]) -> None:
        """Write the choice of layers down."""
        files.write_text(self.folder / FLOATS, Floats(keep_float=names).model_dump_json() + "\n")

    def remove(self) -> None:
        """Remove the folder: the bundle is complete."""
        self._output.finish()

    def _require_same(self, state: Path, settings: dict[str, str]) -> None:
        before = documents.read_record(state, State, ConfigError, "remove its folder to start again").settings
        changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
        if changed:
            raise ConfigError(
                f"the unfinished job in {self.folder} was started with another {', another '.join(changed)}; use the "
                "same, or remove that folder to start again"
            )
