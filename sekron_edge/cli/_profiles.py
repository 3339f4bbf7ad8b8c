"""Device profiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sekron_edge.cli._artifacts import parse_precision
from sekron_edge.cli._console import ConsoleProgress, print_table
from sekron_edge.cli._jobs import AsJson
from sekron_edge.errors import ConfigError

app = typer.Typer(help="Device profiles: facts about devices, each with its source.", no_args_is_help=True)


@app.command("list")
def list_profiles(as_json: AsJson = False) -> None:
    """List the devices that come with the package."""
    from sekron_edge.devices import load_profile, profile_ids

    profiles = [load_profile(name) for name in profile_ids()]
    if as_json:
        typer.echo(json.dumps([{"id": p.id, "name": p.name, "kind": p.kind} for p in profiles], indent=2))
        return
    print_table(["id", "name", "kind"], [[p.id, p.name, p.kind] for p in profiles])


@app.command("show")
def show_profile(
    profile: Annotated[str, typer.Argument(help="A profile's id, or a path to a TOML file.")],
    draw: Annotated[
        Path | None, typer.Option(help="HTML file to draw this machine's latency model to; only for the host.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="Of the latency model.")] = "litert",
    precision: Annotated[str, typer.Option(help="Of the latency model.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Of the latency model.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Show a device's facts, each with its provenance and source; draw its latency model."""
    from sekron_edge import files
    from sekron_edge.devices import load_profile
    from sekron_edge.latency import draw_calibration

    device = load_profile(profile)
    if draw is not None:
        if device.kind != "host":
            raise ConfigError(f"the latency model of {device.id} is this machine's, scaled; draw that of the host")
        with ConsoleProgress().busy(f"timing operations with {runtime} {precision}, if that was not done before"):
            files.write_text(draw, draw_calibration(runtime, precision=parse_precision(precision), threads=threads))
    if as_json:
        typer.echo(device.model_dump_json(indent=2))
        return
    print_table(["fact", "value", "provenance", "source"], [list(map(str, row)) for row in device.summary_rows()])


@app.command("check")
def check_profile(path: Annotated[str, typer.Argument(help="A path to a TOML file.")]) -> None:
    """Check a profile of your own: keys, units, provenance."""
    from sekron_edge.devices import load_profile

    typer.echo(f"{load_profile(path).id}: correct")


@app.command("calibrate")
def calibrate_host(
    runtime: Annotated[str, typer.Option(help="Format whose runtime is timed.")] = "litert",
    precision: Annotated[str, typer.Option(help="fp32 or int8.")] = "fp32",
    threads: Annotated[int, typer.Option(help="Threads that the runtime may use.")] = 1,
    device: Annotated[str, typer.Option(help="local, ssh:NAME or adb:NAME; see docs/measuring.md.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Time single operations on a device, and fit a latency model to them; both are kept in the cache.

    A quarter of the operations is not fitted; their error is printed. So is what makes the times doubtful, if other
    work ran meanwhile; what is kept with doubts is timed again.
    """
    from sekron_edge.latency import cached_calibration
    from sekron_edge.measurement import LocalDevice, open_device

    chosen = None if device == LocalDevice.name else open_device(device)
    with ConsoleProgress().busy(f"timing operations on {device} with {runtime} {precision}"):
        model = cached_calibration(
            runtime,
            precision=parse_precision(precision),
            threads=threads,
            device=chosen,
            again_if_doubtful=True,
        )
    if as_json:
        typer.echo(model.model_dump_json(indent=2))
        return
    rows = [
        [kind, _percent(own.median_error), _percent(own.p90_error), f"{own.tile.rows} x {own.tile.columns}"]
        for kind, own in model.kinds.items()
    ]
    print_table(["operation", "median error, held out", "90th percentile", "tile"], rows)
    typer.echo(model.source)


def _percent(error: float | None) -> str:
    return "unknown" if error is None else f"{error:.1%}"
