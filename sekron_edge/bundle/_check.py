"""Checks of a finished bundle: nothing is missing, added or altered, and every artifact gives its golden outputs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import nn

from sekron_edge import files, pytrees
from sekron_edge.artifacts import Array, Artifact, get_exporter
from sekron_edge.bundle._contents import golden_arrays, golden_inputs, read_manifest, read_weights, rebuild
from sekron_edge.bundle._manifest import (
    GOLDEN_INPUTS,
    GOLDEN_OUTPUTS,
    MANIFEST_NAME,
    SEAL_NAME,
    SIGNATURE_NAME,
    WEIGHTS_NAME,
    Delivery,
    Manifest,
)
from sekron_edge.bundle._signature import Signature, signature_of
from sekron_edge.errors import BundleError, DeviceError, UnsupportedError, VerificationError
from sekron_edge.measurement import Conditions, Contained, MeasurementRequest, Probe
from sekron_edge.nn import outputs_for
from sekron_edge.verification import TOLERANCES, Comparison, Tolerance, compare

_SHOWN = 5
_LONGEST_S = 600.0


class BundleCheck(BaseModel):
    """A bundle that is whole.

    Attributes:
        files: Number of files that were hashed.
        comparisons: Comparison of each artifact on the golden inputs; of the rebuilt PyTorch model, too, under the name
            of its weights, where the original was given.
        not_run: Artifacts that nothing here runs, and why.
        signature: Of the manifest, and so of every file; None if there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int
    comparisons: dict[str, Comparison]
    not_run: dict[str, str] = {}
    signature: Signature | None = None


def verify_bundle(bundle: Path, *, trusted: Path | None = None, original: nn.Module | None = None) -> BundleCheck:
    """Check every file's hash, then run every artifact that runs on this machine on the golden inputs.

    Each runs in a process of its own, with little memory and, where the system allows it, no network.

    Args:
        bundle: Its folder.
        trusted: File of the public keys of those whose bundles are wanted: an unsigned one is then an error. Without
            it a signature must only belong to the bundle.
        original: Any instance of the class that was compressed: with it the delivered PyTorch model is rebuilt, and
            must give the golden outputs, too. Without it the weights must only be finite numbers.

    Raises:
        BundleError: If a file is missing, added or altered, or the signature is not as wanted; names it.
        ConfigError: If there is no such folder, or ``trusted`` has no keys.
        VerificationError: If an artifact, or the rebuilt model, no longer gives the golden outputs on this machine, or
            does not run here.
        MissingDependencyError: If the runtime of one is absent.
    """
    manifest = read_manifest(bundle)
    _check_files(bundle, manifest)
    signature = _signature(bundle, trusted)
    read_weights(bundle)
    inputs, outputs = (golden_arrays(bundle / name) for name in (GOLDEN_INPUTS, GOLDEN_OUTPUTS))
    comparisons: dict[str, Comparison] = {}
    if original is not None:
        comparisons[WEIGHTS_NAME] = _rebuilt(bundle, manifest, original, outputs)
    not_run: dict[str, str] = {}
    for delivery in manifest.deliveries:
        artifact = delivery.artifact.model_copy(update={"path": bundle / delivery.artifact.path})
        if files.sha256(artifact.path) != artifact.sha256:
            raise BundleError(f"{artifact.path} is not the artifact that was verified; build the bundle again")
        run = _runnable(artifact, bundle)
        name = run.path.relative_to(bundle).as_posix()
        try:
            found = _outputs(run, inputs)
        except UnsupportedError as error:
            not_run[name] = str(error)
            continue
        except DeviceError as error:
            get_exporter(run.format).import_runtime()  # an absent one is named with the command that installs it
            raise VerificationError(f"{name} does not run on this machine: {error}") from error
        comparison = compare(outputs, found, classes=_classes(manifest))
        if not comparison.within(_tolerance(delivery)):
            raise VerificationError(f"{run.path.name} no longer gives the golden outputs on this machine: {comparison}")
        comparisons[name] = comparison
    return BundleCheck(files=len(manifest.files), comparisons=comparisons, not_run=not_run, signature=signature)


def _signature(bundle: Path, trusted: Path | None) -> Signature | None:
    path = bundle / SIGNATURE_NAME
    if path.exists():
        return signature_of((bundle / MANIFEST_NAME).read_bytes(), path, trusted)
    if trusted is not None:
        raise BundleError(f"{bundle} is not signed, and only bundles of those in {trusted} are wanted")
    return None


def _rebuilt(bundle: Path, manifest: Manifest, original: nn.Module, outputs: tuple[Array, ...]) -> Comparison:
    """Compare the delivered model, rebuilt in PyTorch, with the golden outputs."""
    model = rebuild(bundle, original)
    samples = [outputs_for(model, one) for one in pytrees.batches(golden_inputs(bundle, manifest), 1)]
    found = tuple(value.numpy() for value in pytrees.tensors(pytrees.concatenated(samples)))
    comparison = compare(outputs, found, classes=_classes(manifest))
    if not comparison.within(TOLERANCES["fp32"]):
        raise VerificationError(f"the model of {WEIGHTS_NAME} does not give the golden outputs: {comparison}")
    return comparison


def _outputs(artifact: Artifact, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    """Run an artifact in a process of its own: whoever made it may have made it to end the one that loads it."""
    once = Conditions(runs=1, warmup=0, timeout_s=_LONGEST_S)
    request = MeasurementRequest((artifact,), once, inputs, wants_outputs=True, settle_seconds=0, least_seconds=0)
    (outputs,) = Contained().carry_out(request).outputs
    return outputs


def probes(bundle: Path) -> list[Probe]:
    """Return every artifact with the golden inputs, and a check of its outputs, wherever it runs.

    Raises:
        BundleError: If the manifest or the golden samples are missing or altered.
    """
    manifest = read_manifest(bundle)
    for name in (GOLDEN_INPUTS, GOLDEN_OUTPUTS):
        if not (bundle / name).is_file() or files.sha256(bundle / name) != manifest.files[name].sha256:
            raise BundleError(f"{bundle / name} is missing, or not as it was built; build the bundle again")
    inputs, outputs = (golden_arrays(bundle / name) for name in (GOLDEN_INPUTS, GOLDEN_OUTPUTS))

    def probe(delivery: Delivery) -> Probe:
        artifact = delivery.artifact.model_copy(update={"path": bundle / delivery.artifact.path})

        def check_outputs(actual: tuple[Array, ...]) -> str:
            comparison = compare(outputs, actual, classes=_classes(manifest))
            if not comparison.within(_tolerance(delivery)):
                raise VerificationError(f"{artifact.path.name} does not give the golden outputs there: {comparison}")
            return str(comparison)

        return Probe(artifact, inputs, check_outputs)

    return [probe(delivery) for delivery in manifest.deliveries]


def _classes(manifest: Manifest) -> int | None:
    """Return the number of classes that outputs decide among; None where no delivery was found to decide anything."""
    decided = any(one.check is not None and one.check.real.agreement is not None for one in manifest.deliveries)
    return len(manifest.labels) if decided else None


def _tolerance(delivery: Delivery) -> Tolerance:
    """Return the tolerance that the artifact was verified to; its precision's where nothing here ran it."""
    return TOLERANCES[delivery.artifact.precision] if delivery.check is None else delivery.check.tolerance


def _runnable(artifact: Artifact, bundle: Path) -> Artifact:
    """Return the artifact that runs here: itself, or the file in the bundle that it was compiled from."""
    before = artifact.compiled_from
    return artifact if before is None else before.model_copy(update={"path": bundle / before.path})


def _check_files(bundle: Path, manifest: Manifest) -> None:
    irregular = [path.relative_to(bundle).as_posix() for path in files.irregular(bundle)]
    if irregular:
        shown = ", ".join(irregular[:_SHOWN])
        raise BundleError(f"{bundle} is not as it was built: {shown}: neither a file nor a folder with files")
    present = {path.relative_to(bundle).as_posix(): path for path in files.files_below(bundle)}
    for name in (MANIFEST_NAME, SEAL_NAME, SIGNATURE_NAME):
        present.pop(name, None)
    missing = sorted(manifest.files.keys() - present.keys())
    added = sorted(present.keys() - manifest.files.keys())
    altered = sorted(
        name
        for name, entry in manifest.files.items()
        if name in present
        and (present[name].stat().st_size != entry.size_bytes or files.sha256(present[name]) != entry.sha256)
    )
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for what, names in (("missing", missing), ("added", added), ("altered", altered))
        if names
    ]
    if problems:
        raise BundleError(f"{bundle} is not as it was built: {'; '.join(problems)}. Build the bundle again.")
