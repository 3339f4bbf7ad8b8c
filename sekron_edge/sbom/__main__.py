"""``python -m sekron_edge.sbom OUT`` writes the bill of sekron-edge itself, and prints its packages' licences.

That is of what it requires, with every exporter, as it is installed here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from sekron_edge import files
from sekron_edge.sbom import graph, installed, written


def main(out: Path) -> None:
    """Write the bill, and print the licences.

    Args:
        out: The file.
    """
    packages = installed("sekron-edge[all]")
    needs = graph(packages)
    subject = next(one for one in needs if one.name == "sekron-edge")
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(out, written(subject, needs, datetime.now(UTC)))
    for package in packages.values():
        typer.echo(f"{package.name} {package.version}: {', '.join(package.licences) or 'names none'}")


typer.run(main)
