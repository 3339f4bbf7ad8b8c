"""Single artifacts and finished bundles: export, verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from sekron_edge.cli._console import ConsoleProgress, print_table
from sekron_edge.cli._jobs import AsJson
from sekron_edge.errors import ConfigError, NotRunnableError

if TYPE_CHECKING:
    from sekron_edge.artifacts import Precision


_CALIBRATION = 32


def export(
    model: Annotated[str, typer.Argument(help="package.module:factory, or path/to/file.py:factory.")],
    shape: Annotated[list[str], typer.Option(help="Shape of an input, as 1,3,224,224; once for each input.")],
    weights: Annotated[Path | None, typer.Option(help="A state dict: .safetensors, or torch's own.")] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="May be given several times; by default all that can.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, int8, int16x8, int8-weights or int4-weights.")] = "fp32",
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            help="A layer that stays in float where int8 rounds the others; may be given several times.", metavar="NAME"
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")] = Path("dist"),
    name: Annotated[str, typer.Option(help="Stem of the files.")] = "model",
    as_json: AsJson = False,
) -> None:
    """Export a model as it is, and check each file that runs here against it on noise.

    In int8 the scales of activations are taken from noise too: good for a look at latency and size, not for use.

    The description of each file is written beside it (FILE.json); `bench` reads it.
    """
    import torch
    from pydantic import TypeAdapter

    import sekron_edge as se
    from sekron_edge import files
    from sekron_edge.artifacts import Artifact, SourceExporter, exporter_names, get_exporter, kept_in, require_keeping
    from sekron_edge.pipeline import load_model

    wanted = parse_precision(precision)
    kept = keep_float or []
    able = [one for one in exporter_names() if wanted in get_exporter(one).precisions]
    if kept and not any(wanted in kept_in(one) for one in able):
        require_keeping(able[0], wanted)
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(torch.randn(_shape(text), generator=generator) for text in shape)
    progress = ConsoleProgress()
    loaded = load_model(model, weights, progress=progress)
    calibration = [torch.randn(_CALIBRATION * len(value), *value.shape[1:], generator=generator) for value in inputs]
    made: list[Artifact] = []
    for chosen in format or [one for one in able if not kept or wanted in kept_in(one)]:
        with progress.busy(f"exporting {chosen}"):
            artifact = se.export(
                loaded, inputs, format=chosen, precision=wanted, out=out, name=name, calibration=calibration,
                keep_float=kept,
            )  # fmt: skip
            try:
                said = str(se.verify(artifact, loaded, inputs, calibration=calibration).noise)
            except NotRunnableError as error:
                said = f"not verified: {error}"
        progress.say(f"{artifact.path}: {said}")
        files.write_text(description_path(artifact.path), artifact.model_dump_json(indent=2) + "\n")
        exporter = get_exporter(chosen)
        for source, text in (exporter.sources(artifact) if isinstance(exporter, SourceExporter) else {}).items():
            files.write_text(artifact.path.with_name(source), text)
        made.append(artifact)
    if as_json:
        typer.echo(TypeAdapter(list[Artifact]).dump_json(made, indent=2).decode())
        return
    rows = [
        [str(a.path), a.format, a.precision, f"{a.size_bytes:,}", "" if a.delegated is None else f"{a.delegated:.0%}"]
        for a in made
    ]
    print_table(["file", "format", "precision", "bytes", "delegated"], rows)


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    trusted: Annotated[
        Path | None,
        typer.Option(
            help="Public keys, or OpenSSH's allowed signers: one of them must have signed it.", metavar="KEYS"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The original's package.module:factory, or file.py:factory: checks the weights, too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle again: every byte, and every artifact on the golden inputs.

    Ends with exit code 4 if anything is missing, added, altered, or computes something else.
    """
    from sekron_edge.bundle import read_manifest, verify_bundle
    from sekron_edge.pipeline import load_model

    progress = ConsoleProgress()
    original = None if model is None else load_model(model, None, progress=progress)
    with progress.busy(f"checking {bundle}"):
        check = verify_bundle(bundle, trusted=trusted, original=original)
    if as_json:
        typer.echo(check.model_dump_json(indent=2))
        return
    rows = [[name, str(comparison)] for name, comparison in check.comparisons.items()]
    print_table(["artifact", "golden inputs"], rows + [[name, why] for name, why in check.not_run.items()])
    typer.echo(f"{bundle}: {check.files} files as they were built, {check.signature or 'not signed'}")
    if missed := read_manifest(bundle).missed:
        said = "; ".join(f"{r.entry} is {r.found:.6g} where {r.limit:.6g} is allowed" for r in missed)
        typer.echo(f"it does not keep its budget: {said}")


def sign(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    key: Annotated[Path, typer.Option(help="OpenSSH key: a private one, or the public one of an agent's.")],
) -> None:
    """Sign a bundle that is there, so that `verify --trusted` says who built it."""
    from sekron_edge.bundle import sign_bundle

    typer.echo(f"{bundle}: {sign_bundle(bundle, key)}")


def parse_precision(text: str) -> Precision:
    """Return the precision that an option names.

    Raises:
        ConfigError: If no precision has that name.
    """
    from pydantic import TypeAdapter, ValidationError

    from sekron_edge.artifacts import Precision

    try:
        precision: Precision = TypeAdapter(Precision).validate_python(text)
    except ValidationError as error:
        raise ConfigError(f"precision must be one of {', '.join(get_args(Precision))}; got {text!r}") from error
    return precision


def _shape(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError as error:
        raise ConfigError(f"a shape must be whole numbers with commas, as 1,3,224,224; got {text!r}") from error
    if min(sizes) < 1:
        raise ConfigError(f"every size of a shape must be at least 1; got {text!r}")
    return sizes


def description_path(path: Path) -> Path:
    """Return the path of an artifact's description, which `export` writes beside it."""
    return path.parent / f"{path.name}.json"
