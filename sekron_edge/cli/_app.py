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
profiles_app = typer.Typer(help="Device profiles: facts about devices, each with its source.", no_args_is_help=True)
app.add_typer(profiles_app, name="profiles")

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


@profiles_app.command("list")
def list_profiles(as_json: AsJson = False) -> None:
    """List the devices that come with the package."""
    from sekron_edge.devices import load_profile, profile_ids

    found = [load_profile(name) for name in profile_ids()]
    if as_json:
        typer.echo(json.dumps([{"id": p.id, "name": p.name, "kind": p.kind} for p in found], indent=2))
        return
    _table(["id", "name", "kind"], [[p.id, p.name, p.kind] for p in found])


@profiles_app.command("show")
def show_profile(
    profile: Annotated[str, typer.Argument(help="A profile's id, or a path to a TOML file.")], as_json: AsJson = False
) -> None:
    """Show a device's facts, each with its provenance and source."""
    from sekron_edge.devices import load_profile

    found = load_profile(profile)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    _table(["fact", "value", "provenance", "source"], [list(map(str, row)) for row in found.summary_rows()])


@profiles_app.command("check")
def check_profile(path: Annotated[str, typer.Argument(help="A path to a TOML file.")]) -> None:
    """Check a profile of your own: keys, units, provenance."""
    from sekron_edge.devices import load_profile

    typer.echo(f"{load_profile(path).id}: correct")
