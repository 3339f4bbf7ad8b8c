"""A trained PyTorch CNN and a device go in; a verified bundle that keeps the device's budgets comes out.

Requirements kept here: importing this package imports neither torch nor any exporter's SDK; names are loaded on
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sekron_edge.artifacts import Artifact
    from sekron_edge.nn import replace_layers
    from sekron_edge.planner import Budget, Plan, score
    from sekron_edge.structure import Factor, Structure
    from sekron_edge.tensor import FactorizedTensor, decompose_tensor

__version__ = "0.1.0"

_HOME = {
    "Artifact": "artifacts",
    "Budget": "planner",
    "Factor": "structure",
    "FactorizedTensor": "tensor",
    "Plan": "planner",
    "Structure": "structure",
    "decompose_tensor": "tensor",
    "replace_layers": "nn",
    "score": "planner",
}

__all__ = [
    "Artifact",
    "Budget",
    "Factor",
    "FactorizedTensor",
    "Plan",
    "Structure",
    "decompose_tensor",
    "replace_layers",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sekron_edge' has no attribute {name!r}")
    value = getattr(import_module(f"sekron_edge.{_HOME[name]}"), name)
    globals()[name] = value
    return value
