"""Measuring: bench, and earlier measurements."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from sekron_edge.cli._artifacts import description_path
from sekron_edge.cli._console import ConsoleProgress, print_table
from sekron_edge.cli._jobs import AsJson
from sekron_edge.cli._measurement_tables import FIGURES, figures, milliseconds, print_report, short_remarks
from sekron_edge.errors import BundleError, ConfigError, DeviceError, VerificationError

if TYPE_CHECKING:
    from sekron_edge.measurement import ComputeUnits, Kept, Probe

app = typer.Typer(help="What was measured before: every measurement is kept.", no_args_is_help=True)

OnDevice = Annotated[str | None, typer.Option("--device", help="Only measurements on this device.")]
OfArtifact = Annotated[str | None, typer.Option("--artifact", help="Only of this file name, or SHA-256 prefix.")]


def bench(
    path: Annotated[Path, typer.Argument(help="A bundle, or a file that `export` wrote.")],
    device: Annotated[
        list[str] | None,
        typer.Option(help="local (default), ssh:NAME or adb:SERIAL; several are measured at once."),
    ] = None,
    runs: Annotated[int, typer.Option(help="Least number of timed runs.")] = 50,
    threads: Annotated[int, typer.Option(help="Threads that the runtime may use.")] = 1,
    cores: Annotated[str, typer.Option(help="Cores to run on, as 4,5; as the system likes by default.")] = "",
    compute_units: Annotated[
        str, typer.Option(help="Units that Core ML may use: ALL, CPU_ONLY, CPU_AND_GPU or CPU_AND_NE.")
    ] = "ALL",
    operators: Annotated[bool, typer.Option(help="Time single operators too, where the runtime can.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that one artifact may take on one device.")] = 600.0,
    retries: Annotated[int, typer.Option(min=0, help="How often to try again where a device is away or busy.")] = 3,
    resume: Annotated[bool, typer.Option(help="Measure only what was not measured since yesterday.")] = False,
    format: Annotated[
        str | None,
        typer.Option(help="Take PATH, a .tflite that something else wrote, as: tflm, ethos-u, ethos-u:u85-256, ..."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Microcontroller that files for one must fit, and whose cycles are estimated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency and memory on devices, each artifact in a process of its own.

    The outputs of a bundle's artifacts are compared to its golden ones on the device. Ends with exit code 5 if a device
    failed, 4 if one computes something else; all other measurements are printed and kept.

    Files for microcontrollers are not measured here: their flash, memory and cycles are counted and estimated. Ends
    with exit code 3 if that is more than --profile has.
    """
    from sekron_edge.devices import footprint, load_profile, require_fit
    from sekron_edge.measurement import Conditions, Retries, measure_fleet, open_device

    conditions = Conditions(
        runs=runs,
        threads=threads,
        affinity=_cores(cores),
        compute_units=_compute_units(compute_units),
        operators=operators,
        timeout_s=timeout,
    )
    devices = [open_device(name) for name in device or ["local"]]
    progress, chosen = ConsoleProgress(), None if profile is None else load_profile(profile)
    with tempfile.TemporaryDirectory() as folder:
        probes = _probes(path) if format is None else _adopted(path, format, Path(folder), progress)
        footprints = {probe.artifact.path: footprint(probe.artifact, chosen) for probe in probes}
        timed = [probe for probe in probes if footprints[probe.artifact.path] is None]
        report = measure_fleet(
            timed, devices, conditions, retries=Retries(times=retries), resume=resume, tell=progress.say
        )
    microcontrollers = tuple(one for one in footprints.values() if one is not None)
    report = report.model_copy(update={"footprints": microcontrollers})
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        print_report(report, [one.name for one in devices], operators=operators)
    for probe in probes:
        if chosen is not None and footprints[probe.artifact.path] is not None:
            require_fit(chosen, probe.artifact)
    failed = [failure for failure in report.failures if failure.kind != "unsupported"]
    if failed or not (report.measurements or report.footprints):
        kind = VerificationError if any(failure.kind == "verification" for failure in failed) else DeviceError
        asked_for = len(report.failures) + len(report.measurements)
        raise kind(
            f"{len(report.failures)} of {asked_for} measurements were not made; see above. What was made is kept"
        )


@app.command("list")
def list_measurements(
    device: OnDevice = None,
    artifact: OfArtifact = None,
    last: Annotated[int, typer.Option(min=1, help="At most this many, the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List measurements, the newest last."""
    from pydantic import TypeAdapter

    from sekron_edge.measurement import Kept, MeasurementStore

    listed = MeasurementStore.default().measurements(device=device, artifact=artifact)[-last:]
    if as_json:
        typer.echo(TypeAdapter(list[Kept]).dump_json(listed, indent=2).decode())
        return
    rows = [
        [str(one.id), f"{one.measurement.measured_at:%Y-%m-%d %H:%M}", one.measurement.artifact_name,
         one.measurement.device, *figures(one.measurement), short_remarks(one.measurement)]
        for one in listed
    ]  # fmt: skip
    print_table(["id", "UTC", "artifact", "device", *FIGURES, "remarks"], rows)


@app.command("show")
def show_measurement(
    number: Annotated[int, typer.Argument(help="Its id in the list.")], as_json: AsJson = False
) -> None:
    """Show one measurement with all its conditions."""
    from sekron_edge.measurement import MeasurementStore

    measured = MeasurementStore.default().measurement(number)
    if as_json:
        typer.echo(measured.model_dump_json(indent=2))
        return
    fields = measured.model_dump(mode="json", exclude={"environment", "operators"}) | measured.environment.model_dump(
        mode="json"
    )
    print_table(["", f"measurement {number}"], [[key, _shown(value)] for key, value in fields.items()])
    if measured.operators:
        print_table(["operator", "ms"], [[one.name, milliseconds(one)] for one in measured.operators])


@app.command("compare")
def compare_measurements(
    first: Annotated[int, typer.Argument(help="Id of a measurement.")],
    second: Annotated[int, typer.Argument(help="Id of another.")],
    as_json: AsJson = False,
) -> None:
    """Compare two measurements; refused if more than one thing differs between them."""
    from sekron_edge.measurement import MeasurementStore, compare_latencies

    store = MeasurementStore.default()
    comparison = compare_latencies(store.measurement(first), store.measurement(second))
    typer.echo(comparison.model_dump_json(indent=2) if as_json else str(comparison))


@app.command("export")
def export_measurements(
    device: OnDevice = None,
    artifact: OfArtifact = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .json or .csv file; standard output if none.")
    ] = None,
) -> None:
    """Write measurements as JSON, by the schema docs/schemas/measurements.json, or as CSV."""
    from sekron_edge import files
    from sekron_edge.measurement import MeasurementReport, MeasurementStore

    kept = MeasurementStore.default().measurements(device=device, artifact=artifact)
    text = MeasurementReport(measurements=tuple(one.measurement for one in kept)).model_dump_json(indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.suffix not in (".json", ".csv"):
        raise ConfigError(f"{out} must end in .json or .csv")
    files.write_text(out, _csv(kept) if out.suffix == ".csv" else text)
    typer.echo(f"{out}: {len(kept)} measurements")


def _csv(kept: list[Kept]) -> str:
    import csv
    import io

    rows = []
    for one in kept:
        fields = one.measurement.model_dump(mode="json")
        environment = fields.pop("environment")
        rows.append({"id": one.id, **fields, **{f"environment_{key}": value for key, value in environment.items()}})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _shown(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _shown(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _cores(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(core) for core in text.split(",") if text)
    except ValueError as error:
        raise ConfigError(f"cores are numbers with commas, as 4,5; got {text!r}") from error


def _compute_units(text: str) -> ComputeUnits:
    from sekron_edge.measurement import ComputeUnits

    known: tuple[ComputeUnits, ...] = get_args(ComputeUnits)
    for units in known:
        if units == text.upper():
            return units
    raise ConfigError(f"compute units are one of {', '.join(known)}; got {text!r}")


def _adopted(path: Path, format: str, folder: Path, progress: ConsoleProgress) -> list[Probe]:
    from sekron_edge.artifacts import adopt
    from sekron_edge.measurement import Probe

    if not path.is_file():
        raise ConfigError(f"{path} must be a file of the format {format}; there is none")
    with progress.busy(f"taking {path.name} as {format}"):
        return [Probe(adopt(path, format=format, folder=folder))]


def _probes(path: Path) -> list[Probe]:
    from sekron_edge.artifacts import Artifact
    from sekron_edge.bundle import MANIFEST_NAME, probes
    from sekron_edge.documents import read_record
    from sekron_edge.measurement import Probe

    if (path / MANIFEST_NAME).is_file():
        return probes(path)
    if not path.exists():
        raise ConfigError(f"there is no {path}; give a bundle, or a file that `sekron-edge export` wrote")
    description = description_path(path)
    if not description.is_file():
        raise BundleError(
            f"{path} is neither a bundle nor a file that `sekron-edge export` wrote: {description.name} is missing. "
            "--format takes a .tflite that something else wrote"
        )
    artifact = read_record(description, Artifact, BundleError, "export the model again")
    return [Probe(artifact.model_copy(update={"path": path}))]
