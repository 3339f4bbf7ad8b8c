"""Budgets: how much of each resource the deployed model may take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from sekron_edge.budget._costs import LayerCost
from sekron_edge.budget._registry import find_resource, planned_resources, resources
from sekron_edge.budget._resource import Resource
from sekron_edge.errors import ConfigError
from sekron_edge.settings import Settings


class Limit(Settings):
    """An upper limit: an absolute ``value``, or relative to the dense model in the same precision."""

    value: float = Field(gt=0)
    relative: bool = False

    def absolute(self, dense: float) -> float:
        """Return the limit in the quantity's own unit, given the dense model's figure."""
        return self.value * dense if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.relative else f"{self.value:g}"


def parse_limit(given: Any) -> Any:
    """Read ``8.0`` (absolute) or ``"0.5x"`` (relative to dense) as a ``Limit``.

    Raises:
        ConfigError: If it is neither, or not positive.
    """
    if given is None or isinstance(given, Limit | Mapping):
        return given
    text = str(given).strip()
    match = re.fullmatch(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(x?)", text)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(
            f'a budget must be a positive number (8.0) or a multiple of the dense model ("0.5x"), not {given!r}'
        )
    return Limit(value=float(match[1]), relative=bool(match[2]))


BudgetEntry = Annotated[Limit | None, BeforeValidator(parse_limit)]


class Budget(Settings):
    """The limits of the deployed model; each entry is absolute, or ``"0.5x"`` of the dense model.

    The keys are the names of `resources`. Those beyond the attributes here (``parameters``, and what was registered)
    are given by name as well, and read with `limit`.

    Attributes:
        latency_ms: Median latency on the target's runtime, in milliseconds.
        artifact_bytes: Size of the artifact, in bytes.
        peak_memory_bytes: Peak memory attributable to the model, in bytes.
        macs: Multiply-accumulates per inference.
        accuracy_drop: Loss of the task's metric compared to the dense model, in the metric's own unit (0.005 is half a
            point of accuracy); checked after fine-tuning.

    Raises:
        ConfigError: If nobody handles one of the keys, or a value is not a limit.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, BudgetEntry]

    latency_ms: BudgetEntry = None
    artifact_bytes: BudgetEntry = None
    peak_memory_bytes: BudgetEntry = None
    macs: BudgetEntry = None
    accuracy_drop: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _of_known_resources(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name in given:
            find_resource(name)
        return {name: limit for name, limit in given.items() if limit is not None or name in cls.model_fields}

    def limit(self, name: str) -> Limit | float | None:
        """Return the limit of a resource; None if it has none."""
        limit: Limit | float | None = dict(self).get(name)
        return limit

    def limited(self) -> list[Resource]:
        """Return the resources that have a limit, in the table's order.

        Raises:
            ConfigError: If nobody handles one of them.
        """
        given = {name for name, limit in self if limit is not None}
        for name in given:
            find_resource(name)
        return [resource for name, resource in resources().items() if name in given]

    def allowed(self, name: str, dense: float) -> float:
        """Return the limit of a resource in its own unit, given the dense model's figure; infinity if it has none."""
        limit = self.limit(name)
        if limit is None:
            return inf
        return limit.absolute(dense) if isinstance(limit, Limit) else limit

    def planned(self, dense: LayerCost) -> dict[str, float]:
        """Return the limits that plans are solved for, in each resource's own unit; sums first, then maxima.

        Args:
            dense: The dense model's predicted cost.

        Raises:
            ConfigError: If nobody handles one of them.
        """
        limited = self.limited()
        return {
            resource.name: self.allowed(resource.name, float(resource.amount(dense)))
            for resource in planned_resources()
            if resource in limited
        }

    def with_limits(self, limits: Mapping[str, float]) -> Budget:
        """Return the budget with absolute limits of some resources in place of its own."""
        return self.model_copy(update={name: Limit(value=limit) for name, limit in limits.items()})

    def with_headroom(self, dense: LayerCost) -> Budget:
        """Return the absolute aims of plans: somewhat less of resources that are measured again at the end."""
        return self.with_limits(
            {name: find_resource(name).headroom * limit for name, limit in self.planned(dense).items()}
        )


HALF_THE_TIME = Budget(latency_ms=Limit(value=0.5, relative=True))
