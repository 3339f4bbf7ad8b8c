"""The table of resources: those that come with sekron-edge, those of installed packages, those registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from itertools import chain
from types import MappingProxyType

from sekron_edge.budget._costs import LARGEST_OF_LAYERS, LayerCost
from sekron_edge.budget._resource import Resource
from sekron_edge.budget._table import BUILT_IN
from sekron_edge.errors import ConfigError
from sekron_edge.plugins import Plugins

ENTRY_POINT_GROUP = "sekron_edge.resources"

_table = {resource.name: resource for resource in BUILT_IN}


def resources() -> Mapping[str, Resource]:
    """Return every resource that a budget may limit, by name."""
    _load_installed()
    return MappingProxyType(_table)


@cache
def _load_installed() -> None:
    for resource in Plugins[Resource](ENTRY_POINT_GROUP, "resource").all():
        _add(resource)


def register_resource(resource: Resource) -> None:
    """Add a resource to the table, beside those found through entry points, before models are scored.

    Raises:
        ConfigError: If the name is taken.
    """
    _load_installed()
    _add(resource)


@contextmanager
def registered(resource: Resource) -> Iterator[Resource]:
    """Have a resource in the table for a while.

    Raises:
        ConfigError: If the name is taken.
    """
    register_resource(resource)
    try:
        yield resource
    finally:
        del _table[resource.name]


def _add(resource: Resource) -> None:
    name, figure, own = resource.name, resource.figure, LayerCost.model_fields
    if name in _table or (resource.count is not None and (name in own or hasattr(LayerCost, name))):
        raise ConfigError(f"a resource or a figure named {name!r} exists; choose another name")
    if isinstance(resource.predict, str):
        if figure not in own:
            raise ConfigError(f"{name!r} is predicted by {figure!r}, which no cost has; figures are {', '.join(own)}")
        rule = "max" if figure in LARGEST_OF_LAYERS else "sum"
        if resource.adds_up != rule:
            raise ConfigError(f"{name!r} adds up by {resource.adds_up!r}, and its figure {figure!r} by {rule!r}")
    _table[name] = resource


def find_resource(name: str) -> Resource:
    """Return the resource of a name.

    Raises:
        ConfigError: If there is none: nobody would handle a budget of it. Lists those that exist.
    """
    if name in _table:  # without a look at packages, which may be importing this one
        return _table[name]
    known = resources()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown key 'budget.{name}'; {hint}Known resources: {', '.join(known)}")
    return known[name]


def planned_resources() -> list[Resource]:
    """Return the resources that plans can be solved for: those that are sums, then those that are maxima."""
    planned = [resource for resource in resources().values() if resource.is_planned]
    return sorted(planned, key=lambda resource: resource.adds_up == "max")


def planned_resource(name: str) -> Resource:
    """Return a resource that plans can be solved for.

    Raises:
        ConfigError: If there is none of that name, or it is only judged at the end.
    """
    resource = find_resource(name)
    if not resource.is_planned:
        known = ", ".join(planned.name for planned in planned_resources())
        raise ConfigError(f"{name} is judged at the end, and no plan can be solved for it; plans bound {known}")
    return resource


def further_resources() -> list[str]:
    """Return the names of the resources that do not come with sekron-edge."""
    return [name for name, resource in resources().items() if resource not in BUILT_IN]


def total(costs: Sequence[LayerCost]) -> LayerCost:
    """Add up layers' costs, each figure to its sum or to the largest.

    Raises:
        ConfigError: If a cost has a figure of a resource that is not in the table.
    """
    further = dict.fromkeys(chain.from_iterable(cost.further for cost in costs))
    largest = LARGEST_OF_LAYERS | {figure for figure in further if find_resource(figure).adds_up == "max"}
    return LayerCost.model_validate(
        {
            figure: max((cost.amount(figure) for cost in costs), default=0)
            if figure in largest
            else sum(cost.amount(figure) for cost in costs)
            for figure in (*LayerCost.model_fields, *further)
        }
    )
