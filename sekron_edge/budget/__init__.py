"""Budgets, and the one table of resources that they may limit.

Requirements kept here: nothing else lists the names of resources; a budget that nobody handles is an error. Solver,
trials, judging, devices' limits, command line and docs read the table.
"""

from sekron_edge.budget._costs import LayerCost
from sekron_edge.budget._evidence import Evidence, Figures, Finding
from sekron_edge.budget._limits import HALF_THE_TIME, Budget, Limit, parse_limit
from sekron_edge.budget._registry import (
    find_resource,
    further_resources,
    planned_resource,
    planned_resources,
    register_resource,
    registered,
    resources,
    total,
)
from sekron_edge.budget._resource import Resource
from sekron_edge.budget._table import ACCURACY_DROP, FILE_SIZE, LATENCY, MACS, PARAMETERS, PEAK_MEMORY

__all__ = [
    "ACCURACY_DROP",
    "FILE_SIZE",
    "HALF_THE_TIME",
    "LATENCY",
    "MACS",
    "PARAMETERS",
    "PEAK_MEMORY",
    "Budget",
    "Evidence",
    "Figures",
    "Finding",
    "LayerCost",
    "Limit",
    "Resource",
    "find_resource",
    "further_resources",
    "parse_limit",
    "planned_resource",
    "planned_resources",
    "register_resource",
    "registered",
    "resources",
    "total",
]
