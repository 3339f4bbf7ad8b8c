"""Exporters by name, and what is done with one: exporting, taking up files, running what came out."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sekron_edge.arguments import require, require_names
from sekron_edge.artifacts._artifact import Array, Artifact, Precision
from sekron_edge.artifacts._contracts import (
    AdoptingExporter,
    DeviceExporter,
    DeviceRuntime,
    Exporter,
    KeepingExporter,
    PrimitiveExporter,
    Session,
    TracedPrimitiveExporter,
)
from sekron_edge.artifacts._whole_batches import batch_and_total, whole_batches
from sekron_edge.errors import ConfigError, ExportError, NotRunnableError

if TYPE_CHECKING:
    import torch

    from sekron_edge import pytrees

ENTRY_POINT_GROUP = "sekron_edge.exporters"
# Precisions whose activations are integers.
_ROUNDING: tuple[Precision, ...] = ("int8",)
_VARIANT = ":"

_registered: dict[str, Exporter] = {}


def register_exporter(exporter: Exporter) -> None:
    """Make an exporter known by its name, beside those found through entry points.

    Raises:
        ConfigError: If the name is taken.
    """
    if exporter.name in exporter_names():
        raise ConfigError(f"an exporter named {exporter.name!r} exists; choose another name")
    _registered[exporter.name] = exporter


def exporter_names() -> list[str]:
    """Return the names of all known exporters, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} | set(_registered))


def exporter_family(name: str) -> str:
    """Return the name of an exporter without its variant: ``ethos-u`` of ``ethos-u:u85-256``."""
    return name.partition(_VARIANT)[0]


def get_exporter(name: str) -> Exporter:
    """Return the exporter called ``name``; ``FAMILY:VARIANT`` where the family has variants.

    Raises:
        ConfigError: If there is none; lists those that exist.
    """
    if name in _registered:
        return _registered[name]
    family, _, variant = name.partition(_VARIANT)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == family:
            made = point.load()
            variants = _variants(made)
            if variant and variant not in variants:
                raise ConfigError(f"{family} has no variant {variant!r}; it has: {', '.join(variants) or 'none'}")
            exporter: Exporter = made(variant) if variant else made()
            return exporter
    raise ConfigError(f"no export format {name!r}; known formats: {', '.join(exporter_names())}")


def all_exporters() -> list[Exporter]:
    """Return all known exporters, by their names; where there are variants, these behind the one without."""
    exporters = [get_exporter(name) for name in exporter_names()]
    return [
        one
        for exporter in exporters
        for one in (exporter, *(get_exporter(f"{exporter.name}{_VARIANT}{variant}") for variant in _variants(exporter)))
    ]


def is_registered(name: str) -> bool:
    """Say whether an exporter is known to this process alone, by `register_exporter`."""
    return name in _registered


def _variants(exporter: object) -> tuple[str, ...]:
    variants: tuple[str, ...] = getattr(exporter, "variants", ())
    return variants


def device_runtime(name: str) -> DeviceRuntime | None:
    """Return what runs an exporter's artifacts on devices; None where it offers nothing."""
    exporter = get_exporter(name)
    return exporter.device_runtime if isinstance(exporter, DeviceExporter) else None


def calibratable(name: str, precision: Precision) -> bool:
    """Say whether a latency model can be fitted to an exporter's runtime in a precision."""
    exporter = get_exporter(name)
    return (
        isinstance(exporter, PrimitiveExporter | TracedPrimitiveExporter) and precision in exporter.primitive_precisions
    )


def adopt(file: Path, *, format: str, folder: Path) -> Artifact:
    """Take up a file that something else wrote as an artifact of ``format``.

    Args:
        file: Used as it is.
        format: Of an exporter that takes such files.
        folder: For what has to be made of it.

    Raises:
        ConfigError: If there is no such format, or it takes only what its exporter wrote.
        ExportError: If the file is of another format, or cannot run there.
    """
    exporter = get_exporter(format)
    if not isinstance(exporter, AdoptingExporter):
        able = [name for name in exporter_names() if isinstance(get_exporter(name), AdoptingExporter)]
        raise ConfigError(f"{format} takes no files that something else wrote; {', '.join(able)} do")
    return exporter.adopt(file, folder)


def export(
    model: torch.nn.Module,
    example_inputs: pytrees.Inputs,
    *,
    format: str,
    precision: Precision = "fp32",
    out: str | Path,
    name: str = "model",
    calibration: pytrees.Inputs | None = None,
    keep_float: Sequence[str] = (),
) -> Artifact:
    """Export a model as ``out/NAME_PRECISION.SUFFIX``.

    Args:
        model: Any module; exported in ``eval`` mode, left untouched.
        example_inputs: As the model takes them (`sekron_edge.pytrees`); their shapes become the artifact's. An artifact
            takes the tensors in them one by one, and gives those of the outputs; floats are float32.
        format: ``executorch``, ``coreml``, ``litert``, or that of an installed plug-in.
        precision: One of the format's precisions.
        out: Folder to write to, made if absent.
        name: Stem of the file.
        calibration: Real inputs, batched, in the same form, never held-out data; int8 activations take their scales
            from them.
        keep_float: Names of layers that stay in float where int8 rounds the others.

    Raises:
        ConfigError: If the format, or the precision in that format, does not exist; if int8 lacks calibration data; if
            the model cannot be exported, or does not take the inputs; if a layer is to be kept in float that is not
            there or is not rounded, or the format keeps none.
        ExportError: If the conversion fails.
    """
    from sekron_edge import pytrees
    from sekron_edge.nn import exportable, exportable_inputs, flattened, require_rounded

    require(format, str, "format", f"one of {', '.join(exporter_names())}")
    require(out, (str, PathLike), "out", "a folder")
    exporter = get_exporter(format)
    if precision not in exporter.precisions:
        raise ConfigError(f"{format} exports {', '.join(exporter.precisions)}, not {precision!r}; choose one of those")
    path = Path(out) / f"{name}_{precision}{exporter.suffix}"
    flat = flattened(model, example_inputs)
    samples = None if calibration is None else pytrees.tensors(exportable_inputs(calibration, model))
    if keep_float:
        require_names(keep_float, "keep_float", "features.0")
        require_keeping(format, precision)
        require_rounded(keep_float, exportable(model), exportable_inputs(example_inputs, model))
    artifact = export_tensors(
        flat.model, flat.inputs, format=format, precision=precision, path=path, calibration=samples,
        keep_float=flat.layers_named(keep_float),
    )  # fmt: skip
    placed = artifact.placed(flat.input_places, flat.output_places)
    return placed.model_copy(update={"keep_float": tuple(keep_float)})


def export_tensors(
    model: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    *,
    format: str,
    precision: Precision,
    path: Path,
    calibration: Sequence[torch.Tensor] | None,
    keep_float: Sequence[str],
) -> Artifact:
    """Export a model of tensors as `KeepingExporter.export` does, with any exporter where no layer is kept."""
    exporter = get_exporter(format)
    if not keep_float:
        return exporter.export(model, inputs, precision=precision, path=path, calibration=calibration)
    assert isinstance(exporter, KeepingExporter)
    return exporter.export(
        model, inputs, precision=precision, path=path, calibration=calibration, keep_float=keep_float
    )


def rounds(precision: Precision) -> bool:
    """Say whether a precision rounds what layers read, so that keeping one in float means anything."""
    return precision in _ROUNDING


def require_keeping(format: str, precision: Precision) -> None:
    """Refuse to keep layers in float where a format does not, or nothing is rounded.

    Raises:
        ConfigError: Names those that do.
    """
    if precision in kept_in(format):
        return
    able = ", ".join(f"{name} in {', '.join(kept_in(name))}" for name in exporter_names() if kept_in(name))
    raise ConfigError(
        f"keep_float: {format} keeps no layers in float in {precision}; these do: {able}. Choose among them, or name "
        "no layers to keep in float"
    )


def kept_in(format: str) -> tuple[Precision, ...]:
    """Return the precisions in which a format can keep layers in float."""
    exporter = get_exporter(format)
    return exporter.keeps_float_in if isinstance(exporter, KeepingExporter) else ()


def predict(session: Session, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Array, ...]:
    """Run a session on inputs in PyTorch's layout; outputs come back in PyTorch's layout.

    The batch of ``inputs`` may be any multiple of the artifact's own batch: it is run in pieces. An input of the
    artifact's own shape is the same for all pieces.

    Raises:
        ExportError: If the number of inputs, or a shape, is not the artifact's, or the runtime fails.
        NotRunnableError: If only another runtime can say what the artifact computes.
    """
    if len(inputs) != len(artifact.inputs):
        raise ExportError(f"{artifact.path.name} takes {len(artifact.inputs)} inputs, {len(inputs)} were given")
    shapes = [spec.torch_shape for spec in artifact.inputs]
    batch, total = batch_and_total(inputs, shapes)
    if total % batch:
        raise ExportError(f"{artifact.path.name} runs batches of {batch}; {total} samples do not divide into them")
    results = []
    for piece in whole_batches(inputs, shapes):
        given = [spec.from_torch(array) for spec, array in zip(artifact.inputs, piece, strict=True)]
        try:
            results.append(session.run(given))
        except NotRunnableError:
            raise
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{artifact.path.name} fails when it runs in {session.runtime}: {error}") from error
    return tuple(
        spec.to_torch(np.concatenate([result[index] for result in results]))
        for index, spec in enumerate(artifact.outputs)
    )
