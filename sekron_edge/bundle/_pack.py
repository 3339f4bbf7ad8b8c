"""Packing a bundle: whole or not at all, every file hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save as serialized
from safetensors.torch import save as serialized_state
from torch import Tensor

from sekron_edge import files
from sekron_edge.artifacts import Array, Artifact, SourceExporter, get_exporter
from sekron_edge.bundle._contents import read_manifest
from sekron_edge.bundle._manifest import (
    GOLDEN_INPUTS,
    GOLDEN_OUTPUTS,
    MANIFEST_NAME,
    PLAN_NAME,
    SBOM_NAME,
    SEAL_NAME,
    SIGNATURE_NAME,
    WEIGHTS_NAME,
    Delivery,
    FileEntry,
    Manifest,
)
from sekron_edge.bundle._report import render_report
from sekron_edge.bundle._sbom import bill_of_materials
from sekron_edge.bundle._signature import Signature, signature_of, signed
from sekron_edge.bundle._snippets import snippet
from sekron_edge.errors import BundleError, ConfigError
from sekron_edge.planner import Plan


@dataclass(frozen=True)
class Golden:
    """Real inputs and the PyTorch model's outputs for them, each ``(batch, ...)`` in PyTorch's layout."""

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def require_replaceable(out: Path) -> None:
    """Refuse to replace anything but a bundle that we wrote, to which nobody has added a file.

    Raises:
        ConfigError: If ``out`` is something else.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is no folder: give another one for the bundle")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        listed = read_manifest(out).files
    except BundleError as error:
        raise ConfigError(
            f"{out} is not replaced: it is not a bundle as this release writes them ({error}). Give another folder, or "
            "move it away"
        ) from error
    ours = {*listed, MANIFEST_NAME, SEAL_NAME, SIGNATURE_NAME}
    present = sorted({*files.files_below(out), *files.irregular(out)})
    if others := [name for path in present if (name := path.relative_to(out).as_posix()) not in ours]:
        raise ConfigError(
            f"{out} is not replaced: {others[0]} was added to the bundle that is there. Move it away, or give another "
            "folder"
        )


def pack(
    manifest: Manifest,
    plan: Plan,
    golden: Golden,
    weights: Mapping[str, Tensor],
    out: Path,
    *,
    sign: Path | None = None,
) -> Manifest:
    """Write the bundle to the folder ``out``, replacing a bundle that is there.

    Args:
        manifest: Its deliveries' paths point to the artifacts as they are now; ``files`` and snippets are filled in.
        plan: Becomes ``plan.json``.
        golden: Becomes ``golden/``.
        weights: State dict of the delivered model, as `decompose` builds it from the plan; becomes
            ``weights.safetensors``.
        out: The bundle's folder.
        sign: File of the OpenSSH key to sign with, if any.

    Returns:
        The manifest as written.

    Raises:
        ConfigError: If what is at ``out`` may not be replaced, or the key cannot sign.
        BundleError: If an artifact has changed since it was verified.
    """
    require_replaceable(out)
    with files.whole_folder(out) as folder:
        deliveries = tuple(_deliver(delivery, manifest, folder) for delivery in manifest.deliveries)
        files.write_text(folder / PLAN_NAME, plan.to_json())
        state = {key: value.contiguous() for key, value in weights.items()}
        (folder / WEIGHTS_NAME).write_bytes(serialized_state(state))
        _save(folder / GOLDEN_INPUTS, golden.inputs)
        _save(folder / GOLDEN_OUTPUTS, golden.outputs)
        written = manifest.model_copy(update={"deliveries": deliveries, "files": {}})
        files.write_text(folder / "report.html", render_report(written, plan))
        files.write_text(folder / SBOM_NAME, bill_of_materials(written, folder))
        listed = {path.relative_to(folder).as_posix(): path for path in files.files_below(folder)}
        entries = {
            name: FileEntry(sha256=files.sha256(path), size_bytes=path.stat().st_size) for name, path in listed.items()
        }
        written = written.model_copy(update={"files": entries})
        content = written.model_dump_json(indent=2) + "\n"
        files.write_text(folder / MANIFEST_NAME, content)
        files.write_text(folder / SEAL_NAME, f"{files.sha256(folder / MANIFEST_NAME)}  {MANIFEST_NAME}\n")
        if sign is not None:
            (folder / SIGNATURE_NAME).write_bytes(signed(content.encode(), sign))
    return written


def sign_bundle(bundle: Path, key: Path) -> Signature:
    """Sign a bundle that is there, in place of a signature that it has; see `signature_of` for what that is worth.

    Raises:
        BundleError: If there is no bundle.
        ConfigError: If the key cannot sign.
        MissingDependencyError: If OpenSSH is absent.
    """
    read_manifest(bundle)
    content = (bundle / MANIFEST_NAME).read_bytes()
    with files.whole_file(bundle / SIGNATURE_NAME) as path:
        path.write_bytes(signed(content, key))
    return signature_of(content, bundle / SIGNATURE_NAME)


def _deliver(delivery: Delivery, manifest: Manifest, folder: Path) -> Delivery:
    artifact = _copied(delivery.artifact, folder)
    exporter = get_exporter(artifact.format)
    name, code = snippet(artifact, manifest, exporter)
    files.write_text(folder / "snippets" / name, code)
    sources = exporter.sources(delivery.artifact) if isinstance(exporter, SourceExporter) else {}
    for file, text in sources.items():
        files.write_text(folder / "sources" / file, text)
    written = tuple(f"sources/{file}" for file in sources)
    return delivery.model_copy(update={"artifact": artifact, "snippet": f"snippets/{name}", "sources": written})


def _copied(artifact: Artifact, folder: Path) -> Artifact:
    """Copy an artifact, and the file it was compiled from, into the bundle; return it with its path there."""
    before = artifact.compiled_from
    relative = Path("artifacts") / artifact.path.name
    files.copy(artifact.path, folder / relative)
    if files.sha256(folder / relative) != artifact.sha256:
        raise BundleError(f"{artifact.path} has changed since it was verified; export it again")
    return artifact.model_copy(
        update={"path": relative, "compiled_from": None if before is None else _copied(before, folder)}
    )


def _save(path: Path, arrays: tuple[Array, ...]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(serialized({f"{index}": np.ascontiguousarray(array) for index, array in enumerate(arrays)}))
