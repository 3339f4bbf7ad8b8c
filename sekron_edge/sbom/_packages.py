"""Installed packages: their versions, their licences, and what they require."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True)
class Package:
    """A package.

    Attributes:
        name: As the package itself writes it.
        version: Of the package.
        licences: An SPDX expression, or names as its metadata has them; empty if that names none.
        requires: Canonical names of those packages that it requires and that are installed, sorted.
    """

    name: str
    version: str
    licences: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()


def installed(*requirements: str) -> dict[str, Package]:
    """Return packages and all that they require in turn, by canonical name; what is not installed is left out.

    Args:
        *requirements: As pip takes them: ``numpy``, ``sekron-edge[all]``.
    """
    found: dict[str, Distribution] = {}
    edges: dict[str, set[str]] = defaultdict(set)
    seen = set()
    waiting = [one for requirement in requirements for read in _read(requirement) for one in _with_extras(read)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for needed in (read for text in found[name].requires or () for read in _read(text)):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                edges[name].add(canonicalize_name(needed.name))
                waiting += _with_extras(needed)
    return {
        name: Package(about.name, about.version, _licences(about), tuple(sorted(edges[name] & found.keys() - {name})))
        for name, about in sorted(found.items())
    }


def _read(text: str) -> list[Requirement]:
    """Return the requirement that a text states; nothing if it states none, as in some old metadata."""
    try:
        return [Requirement(text)]
    except InvalidRequirement:
        return []


def _with_extras(requirement: Requirement) -> list[tuple[str, str]]:
    """Return the package without an extra, and with each that is asked for."""
    return [(canonicalize_name(requirement.name), extra) for extra in ("", *requirement.extras)]


def _licences(about: Distribution) -> tuple[str, ...]:
    """Return the SPDX expression; of older metadata the classifiers, or else the first line of the free text."""
    stated = about.metadata.get_all("License-Expression", [])
    classifiers = about.metadata.get_all("Classifier", [])
    named = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    first = [line for text in about.metadata.get_all("License", []) for line in text.strip().splitlines()[:1]]
    return tuple(stated or sorted(named) or first)
