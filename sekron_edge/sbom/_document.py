"""CycloneDX documents: components, and which needs which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import NAMESPACE_OID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from sekron_edge._version import __version__
from sekron_edge.sbom._packages import Package

Needs = dict[Component, list[Component]]


def graph(packages: Mapping[str, Package], *, scope: ComponentScope = ComponentScope.REQUIRED) -> Needs:
    """Return packages as components, with those of them that each requires.

    Args:
        packages: By canonical name.
        scope: Whether the subject of the document contains them.
    """
    made = {name: _library(package, scope) for name, package in packages.items()}
    return {made[name]: [made[one] for one in package.requires] for name, package in packages.items()}


def written(subject: Component, needs: Mapping[Component, Iterable[Component]], made_at: datetime) -> str:
    """Return a document in JSON.

    Args:
        subject: What it is about.
        needs: Every component with those that it needs; the subject's, too. Each has a ``bom_ref`` of its own.
        made_at: The document's date.
    """
    tool = Component(type=ComponentType.APPLICATION, name="sekron-edge", version=__version__, bom_ref="tool")
    bom = Bom(
        metadata=BomMetaData(component=subject, timestamp=made_at, tools=ToolRepository(components=[tool])),
        components=[one for one in needs if one != subject],
        dependencies=[
            Dependency(one.bom_ref, [Dependency(other.bom_ref) for other in others]) for one, others in needs.items()
        ],
        serial_number=NAMESPACE_OID,
    )
    # Numbers are random by default; this one is the contents'.
    bom.serial_number = uuid5(NAMESPACE_OID, JsonV1Dot6(bom).output_as_string())
    return f"{JsonV1Dot6(bom).output_as_string(indent=2)}\n"


def _library(package: Package, scope: ComponentScope) -> Component:
    purl = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        bom_ref=purl.to_string(),
        purl=purl,
        scope=scope,
        licenses=map(LicenseFactory().make_from_string, package.licences),
    )
