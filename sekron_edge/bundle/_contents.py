"""What a finished bundle holds, read back: its manifest, its golden samples, the PyTorch model that it delivers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_state
from torch import Tensor, nn

from sekron_edge import documents, files, pytrees
from sekron_edge.artifacts import Array
from sekron_edge.bundle._manifest import (
    GOLDEN_INPUTS,
    MANIFEST_NAME,
    MANIFEST_SCHEMA_VERSION,
    PLAN_NAME,
    SEAL_NAME,
    WEIGHTS_NAME,
    Manifest,
)
from sekron_edge.bundle._sound import require_sound
from sekron_edge.errors import BundleError, ConfigError
from sekron_edge.nn import admitted, expose_layers, whole_state
from sekron_edge.planner import Plan, decompose


def read_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest, and check its seal.

    Raises:
        ConfigError: If there is no such folder.
        BundleError: If there is no manifest, or it is altered, of another version, or says what cannot be.
    """
    if not bundle.is_dir():
        raise ConfigError(f"there is no folder {bundle}; give that of a bundle")
    path, seal = bundle / MANIFEST_NAME, bundle / SEAL_NAME
    for needed in (path, seal):
        if not needed.is_file():
            raise BundleError(f"{bundle} is no complete bundle: {needed.name} is missing")
    content = path.read_bytes()
    expected = f"{files.sha256(path)}  {MANIFEST_NAME}\n".encode()
    if seal.read_bytes() != expected:
        raise BundleError(f"{path} or its seal {SEAL_NAME} was altered: the hashes differ; build the bundle again")
    known = f"this release knows schema version {MANIFEST_SCHEMA_VERSION}"
    manifest = documents.parsed_record(content, Manifest, path, BundleError, known)
    require_sound(content, manifest, path)
    return manifest


def golden_arrays(path: Path) -> tuple[Array, ...]:
    """Read golden inputs or outputs, one array a tensor.

    Raises:
        BundleError: If the file is damaged.
    """
    try:
        arrays = load_file(str(path))
        return tuple(arrays[f"{index}"] for index in range(len(arrays)))
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def read_weights(bundle: Path) -> dict[str, Tensor]:
    """Read the delivered model's state dict.

    Raises:
        BundleError: If it is damaged, or holds what is no finite number.
    """
    path = bundle / WEIGHTS_NAME
    try:
        state = load_state(str(path))
    except SafetensorError as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BundleError(f"{path} holds values of {name} that are no finite numbers; build the bundle again")
    return state


def rebuild(bundle: Path | str, original: nn.Module) -> nn.Module:
    """Return the PyTorch model that a bundle delivers, from its plan and its weights.

    Args:
        bundle: Its folder. What it holds is read, not verified: `verify_bundle` does that.
        original: Any instance of the class that was compressed, left untouched; its own weights do not matter.

    Raises:
        BundleError: If the bundle cannot be read, or is not of such a model.
        ConfigError: If there is no such folder, or the model cannot be traced with the golden inputs.
    """
    bundle = Path(bundle)
    manifest = read_manifest(bundle)
    plan = documents.read_record(bundle / PLAN_NAME, Plan, BundleError, "build the bundle again")
    inputs = golden_inputs(bundle, manifest)
    exposed = expose_layers(admitted(original), next(pytrees.batches(inputs, 1)))
    names = dict(exposed.named_modules())
    if missing := [name for name in plan.structures() if name not in names]:
        raise BundleError(f"{bundle} is not of this {type(original).__name__}: that has no layer {missing[0]}")
    model = decompose(exposed, plan)
    try:
        model.load_state_dict(whole_state(model, read_weights(bundle)))
    except RuntimeError as error:
        raise BundleError(f"{bundle} is not of this {type(original).__name__}: {error}") from error
    return model


def golden_inputs(bundle: Path, manifest: Manifest) -> pytrees.Inputs:
    """Return the golden inputs as the PyTorch model takes them: in order, or by name.

    Raises:
        BundleError: If they are damaged, or nested, which their names in the manifest do not tell apart.
    """
    values = [torch.from_numpy(array) for array in golden_arrays(bundle / GOLDEN_INPUTS)]
    places = [spec.place for spec in manifest.inputs]
    if len(values) != len(places):
        raise BundleError(f"{bundle} has {len(values)} golden inputs, and its manifest {len(places)}")
    if all(place in (None, f"input_{index}") for index, place in enumerate(places)):
        return tuple(values)
    nested = [place for place in places if not (place or "").isidentifier()]
    if nested:
        raise BundleError(f"{bundle} has nested inputs, as {nested[0]!r}: rebuild its model as docs/bundles.md shows")
    return dict(zip(map(str, places), values, strict=True))
