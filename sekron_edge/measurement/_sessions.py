"""Exporters' own sessions, for the runner on this machine: reference evaluators, and formats that bring no runtime."""

from __future__ import annotations

from typing import Any

from sekron_edge.artifacts import Artifact, Exporter, ExporterOrigin, Session, exporter_of
from sekron_edge.errors import NotRunnableError, SekronEdgeError


class RunsElsewhere(Exception):  # noqa: N818 - the runner makes an answer of it
    """No runtime of this machine runs artifacts of the format."""

    stage = "format"


class ExporterNotFound(Exception):  # noqa: N818
    """The exporter was registered in the process that asks, and cannot be made again in this one."""

    stage = "exporter"


class ExporterRuntime:
    """What the runner makes of a request's item whose ``loader`` names this class."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._exporter = _exporter(item)
        try:
            self._exporter.import_runtime()
        except NotRunnableError as error:
            raise RunsElsewhere(str(error)) from error

    def load(self, item: dict[str, Any], threads: int) -> Session:
        """Load the artifact that the item describes."""
        try:
            return self._exporter.load(Artifact.model_validate(item["described"]), threads=threads)
        except NotRunnableError as error:
            raise RunsElsewhere(str(error)) from error


def _exporter(item: dict[str, Any]) -> Exporter:
    origin = None if item["origin"] is None else ExporterOrigin.model_validate(item["origin"])
    try:
        return exporter_of(item["format"], origin)
    except SekronEdgeError as error:  # also of a script that measures while it is read
        raise ExporterNotFound(str(error)) from error
