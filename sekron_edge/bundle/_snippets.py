"""The code that loads an artifact on its device: short, and complete as to layout and normalisation."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sekron_edge.artifacts import Artifact, Exporter, SnippetExporter
from sekron_edge.bundle._manifest import Manifest

_ANY_NAME, _ANY_TEMPLATE = "{stem}.txt", "any.txt.j2"


def templates() -> Environment:
    """Return the bundle's templates; HTML is escaped, code is not, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("sekron_edge.bundle"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html"], default_for_string=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def snippet(artifact: Artifact, manifest: Manifest, exporter: Exporter) -> tuple[str, str]:
    """Return the name and the text of the snippet for an artifact whose path is relative to the bundle.

    Where the exporter offers none, the text says what the artifact takes and gives.
    """
    offered = exporter.snippet() if isinstance(exporter, SnippetExporter) else None
    environment = templates()
    if offered is None:
        name, template = _ANY_NAME, environment.get_template(_ANY_TEMPLATE)
    else:
        name, template = offered.name, environment.from_string(offered.template)
    return name.format(stem=artifact.path.name.partition(".")[0]), template.render(artifact=artifact, manifest=manifest)
