"""The bill of materials of a bundle: ``sbom.cdx.json``."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from sekron_edge import files
from sekron_edge.artifacts import Artifact
from sekron_edge.bundle._manifest import WEIGHTS_NAME, Manifest
from sekron_edge.sbom import Needs, Package, graph, installed, written

_OURS, _PYTHON = "sekron-edge", "python"


def bill_of_materials(manifest: Manifest, folder: Path) -> str:
    """Return the CycloneDX document of a bundle.

    Its models are there with their hashes, and the packages that made them, with all that these require. Versions are
    those that the manifest records, and for packages that it does not name, those that are installed.

    Args:
        manifest: With its deliveries as they are in the bundle.
        folder: The bundle, as far as it is written.
    """
    artifacts = [one for delivery in manifest.deliveries for one in _with_those_before(delivery.artifact)]
    recorded = [*(artifact.versions for artifact in artifacts), manifest.versions]
    versions: dict[str, str] = {canonicalize_name(name): one for each in recorded for name, one in each.items()}
    python = _interpreter(versions.pop(_PYTHON, platform.python_version()))
    needs, made_with = _packages(versions)
    made_with[_PYTHON] = python
    needs[python] = []
    needs[made_with[_OURS]].append(python)
    models = {artifact.path: _model(artifact.path, folder) for artifact in artifacts}
    for artifact in artifacts:
        before = [] if artifact.compiled_from is None else [models[artifact.compiled_from.path]]
        makers = {_OURS, *map(canonicalize_name, artifact.versions)}
        needs[models[artifact.path]] = [*before, *(made_with[name] for name in makers)]
    weights = _model(Path(WEIGHTS_NAME), folder)
    needs[weights] = [made_with[_OURS]]
    subject = Component(type=ComponentType.MACHINE_LEARNING_MODEL, name=manifest.name, bom_ref="bundle")
    needs[subject] = [weights, *models.values()]
    return written(subject, needs, manifest.created_at)


def _packages(versions: dict[str, str]) -> tuple[Needs, dict[str, Component]]:
    """Return what packages of these versions, and ours, need; and the components by canonical name."""
    packages = installed(_OURS, *versions)
    for name, version in versions.items():
        packages[name] = replace(packages.get(name, Package(name, version)), version=version)
    needs = graph(packages, scope=ComponentScope.EXCLUDED)
    return needs, dict(zip(packages, needs, strict=True))


def _with_those_before(artifact: Artifact) -> list[Artifact]:
    """Return an artifact, and those that it was compiled from."""
    before = artifact.compiled_from
    return [artifact, *([] if before is None else _with_those_before(before))]


def _model(path: Path, folder: Path) -> Component:
    """Return the component of a file, or of a folder with its files, by its path in the bundle."""
    whole = folder / path
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=path.as_posix(),
        bom_ref=path.as_posix(),
        hashes=[] if whole.is_dir() else [_hash(whole)],
        components=[
            Component(type=ComponentType.FILE, name=name, bom_ref=name, hashes=[_hash(file)])
            for file in (files.files_below(whole) if whole.is_dir() else ())
            for name in [file.relative_to(folder).as_posix()]
        ],
    )


def _hash(file: Path) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=files.sha256(file))


def _interpreter(version: str) -> Component:
    purl = PackageURL("generic", name=_PYTHON, version=version)
    return Component(
        type=ComponentType.PLATFORM,
        name=_PYTHON,
        version=version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=ComponentScope.EXCLUDED,
    )
