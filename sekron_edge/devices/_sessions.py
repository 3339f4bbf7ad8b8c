"""Exporters' own sessions, for the runner on this machine: reference evaluators, and formats of others."""

from __future__ import annotations

from typing import Any

from sekron_edge.artifacts import Artifact, Session, get_exporter


class ExporterRuntime:
    """What the runner makes of a job's item whose ``loader`` names this class."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._exporter = get_exporter(item["format"])
        self._exporter.import_runtime()

    def load(self, item: dict[str, Any], threads: int) -> Session:
        """Load the artifact that the item describes."""
        return self._exporter.load(Artifact.model_validate(item["described"]), threads=threads)
