"""The code that loads an artifact on its device: short, and complete as to layout and normalisation."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sekron_edge.artifacts import Artifact
from sekron_edge.bundle._manifest import Manifest

_TEMPLATES = {
    "litert": ("{stem}_litert.py", "litert.py.j2"),
    "executorch": ("{stem}_executorch.py", "executorch.py.j2"),
    "coreml": ("{stem}_coreml.swift", "coreml.swift.j2"),
    "tflm": ("{stem}_tflm.cc", "tflm.cc.j2"),
}
_ANY = ("{stem}.txt", "any.txt.j2")


def templates() -> Environment:
    """Return the bundle's templates; HTML is escaped, code is not, and an unknown name is an error."""
    return Environment(
        loader=PackageLoader("sekron_edge.bundle"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def snippet(artifact: Artifact, manifest: Manifest) -> tuple[str, str]:
    """Return the name and the text of the snippet for an artifact whose path is relative to the bundle."""
    name, template = _TEMPLATES.get(artifact.format, _ANY)
    text = templates().get_template(template).render(artifact=artifact, manifest=manifest)
    return name.format(stem=artifact.path.name.partition(".")[0]), text
