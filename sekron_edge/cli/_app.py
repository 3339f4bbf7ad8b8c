"""The commands."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sekron_edge.errors import SekronEdgeError

app = typer.Typer(
    name="sekron-edge",
    help="A trained PyTorch CNN and a device go in; a verified deployment bundle that keeps its budgets comes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def _commands() -> None:
    """Keep commands by name even while there is only one."""


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_PACKAGES = ("torch", "numpy", "litert-torch", "ai-edge-litert", "executorch", "coremltools", "lightning")


def main() -> None:
    """Run the command line; end with the error's own exit code."""
    try:
        app()
    except SekronEdgeError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(error.exit_code)


def _table(columns: list[str], rows: list[list[str]]) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what can run here: formats, packages and their versions."""
    from sekron_edge.artifacts import exporter_names, get_exporter

    formats = {}
    for name in exporter_names():
        available = get_exporter(name).availability()
        formats[name] = {"ok": available.ok, "reason": available.reason}
    packages = {package: _version(package) for package in ("sekron-edge", *_PACKAGES)}
    if as_json:
        found = {"python": platform.python_version(), "system": platform.platform(), "packages": packages}
        typer.echo(json.dumps({**found, "formats": formats}, indent=2))
        return
    _table(["package", "version"], [[name, found or "not installed"] for name, found in packages.items()])
    _table(["format", "exports here"], [[name, "yes" if f["ok"] else str(f["reason"])] for name, f in formats.items()])
