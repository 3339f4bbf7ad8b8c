"""Exporters' own sessions, for the runner on this machine: reference evaluators, and formats of others."""

from __future__ import annotations

from typing import Any

from sekron_edge.artifacts import Artifact, Session, get_exporter
from sekron_edge.errors import ConfigError, NotRunnableError


class RunsElsewhere(Exception):  # noqa: N818 - the runner makes an answer of it
    """No runtime of this machine runs artifacts of the format."""

    stage = "format"


class ExporterRuntime:
    """What the runner makes of a job's item whose ``loader`` names this class."""

    def __init__(self, item: dict[str, Any]) -> None:
        try:
            self._exporter = get_exporter(item["format"])
            self._exporter.import_runtime()
        except (ConfigError, NotRunnableError) as error:
            raise RunsElsewhere(str(error)) from error

    def load(self, item: dict[str, Any], threads: int) -> Session:
        """Load the artifact that the item describes."""
        try:
            return self._exporter.load(Artifact.model_validate(item["described"]), threads=threads)
        except NotRunnableError as error:
            raise RunsElsewhere(str(error)) from error
