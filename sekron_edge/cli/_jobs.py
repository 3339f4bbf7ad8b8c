"""The main job, and its plan without the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sekron_edge.budget import LATENCY, Budget, resources
from sekron_edge.cli._budget import with_limits
from sekron_edge.cli._console import ConsoleProgress, print_table

if TYPE_CHECKING:
    from sekron_edge.pipeline import JobConfig
    from sekron_edge.planner import Plan

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str | None, typer.Option(help="Id or file of a device profile, instead of the config's.")]
MeasuredOn = Annotated[
    str | None,
    typer.Option(help="How that device is reached, ssh:NAME or adb:NAME: calibrated and measured there."),
]
Config = Annotated[Path, typer.Argument(help="The job: a TOML file. See docs/jobs.md.")]


def run(
    config: Config,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the bundle; by default dist/NAME.")] = None,
    device: Device = None,
    measured_on: MeasuredOn = None,
    resume: Annotated[bool, typer.Option(help="Go on with an unfinished job.")] = False,
    sign: Annotated[Path | None, typer.Option(help="OpenSSH key to sign the bundle with.", metavar="KEY")] = None,
    as_json: AsJson = False,
) -> None:
    """Do the main job: plan, decompose, fine-tune, export, verify, measure, pack.

    Ends with exit code 3, and the nearest points that can be met, if the budget cannot be met.
    """
    from sekron_edge.bundle import before_and_after, budget_rows
    from sekron_edge.pipeline import load_config, run_job

    job = _on_device(load_config(config), device, measured_on)
    done = run_job(job, out or Path("dist") / job.name, resume=resume, sign=sign, progress=ConsoleProgress())
    if as_json:
        typer.echo(done.manifest.model_dump_json(indent=2))
        return
    print_table(["", "dense", "delivered", ""], before_and_after(done.manifest))
    if done.manifest.results:
        print_table(["budget", "limit", "found", "how", ""], budget_rows(done.manifest))
    typer.echo(f"{done.bundle}: {len(done.manifest.deliveries)} verified artifacts; open {done.bundle}/report.html")


@with_limits
def plan(
    config: Config,
    limits: Mapping[str, str],
    device: Annotated[
        list[str] | None,
        typer.Option(help="Id or file of a profile, instead of the config's; several share a scoring."),
    ] = None,
    measured_on: MeasuredOn = None,
    frontier: Annotated[
        int | None, typer.Option(min=2, help="Instead of one plan: this many, down to the least possible time.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write the plan to, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what each layer would become, and why, without fine-tuning.

    The scores are kept: another budget is planned in seconds.
    """
    from pydantic import TypeAdapter

    from sekron_edge import files
    from sekron_edge.pipeline import frontier_job, load_config, plan_job
    from sekron_edge.planner import Plan

    job = load_config(config)
    job = job.model_copy(update={"budget": Budget.model_validate({**job.budget.model_dump(), **limits})})
    job = _on_device(job, None, measured_on)
    progress = ConsoleProgress()
    with tempfile.TemporaryDirectory() as folder:
        if frontier is None:
            plans = plan_job(job, Path(folder), devices=device or (), progress=progress)
        else:
            plans = frontier_job(job, LATENCY.name, frontier, Path(folder), devices=device or (), progress=progress)
    single = frontier is None and len(plans) == 1
    text = plans[0].to_json() if single else TypeAdapter(list[Plan]).dump_json(plans, indent=2).decode() + "\n"
    if out is not None:
        files.write_text(out, text)
    if as_json:
        typer.echo(text, nl=False)
    elif frontier is None:
        typer.echo("\n\n".join(f"{plan.profile}:\n{plan}" for plan in plans) if len(plans) > 1 else str(plans[0]))
    else:
        _print_frontier(plans)


def _on_device(job: JobConfig, device: str | None, measured_on: str | None) -> JobConfig:
    given = {"profile": device, "measured_on": measured_on}
    changes = {key: value for key, value in given.items() if value is not None}
    return job.model_copy(update={"target": job.target.model_copy(update=changes)})


def _print_frontier(plans: list[Plan]) -> None:
    planned = [resource for resource in resources().values() if resource.is_planned]
    rows = [
        [plan.profile, *(resource.shown(resource.amount(plan.cost)) for resource in planned),
         f"{len(plan.structures())} of {len(plan.layers)}", f"{plan.divergence:.4g}"]
        for plan in plans
    ]  # fmt: skip
    titles = [resource.title or resource.name for resource in planned]
    print_table(["device", *titles, "layers changed", "divergence before fine-tuning"], rows)
