"""A trained PyTorch CNN and a device go in; a verified bundle that keeps the device's budgets comes out.

Requirements kept here: importing this package imports neither torch nor any exporter's SDK; names are loaded on
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sekron_edge._version import __version__ as __version__

if TYPE_CHECKING:
    from sekron_edge.artifacts import Artifact, export
    from sekron_edge.budget import Budget
    from sekron_edge.data import unlabelled
    from sekron_edge.devices import DeviceProfile, load_profile
    from sekron_edge.measurement import Measurement, measure
    from sekron_edge.nn import expose_layers, factorize, replace_layers
    from sekron_edge.pipeline import Compressed, compress, plan
    from sekron_edge.planner import Plan, decompose, score
    from sekron_edge.pytrees import Shared
    from sekron_edge.structure import Factor, Structure
    from sekron_edge.task import Task
    from sekron_edge.tensor import FactorizedTensor, decompose_tensor
    from sekron_edge.training import FinetuneConfig, TrainConfig, evaluate, finetune
    from sekron_edge.verification import Check, verify

_HOME = {
    "Artifact": "artifacts",
    "Budget": "budget",
    "Check": "verification",
    "Compressed": "pipeline",
    "DeviceProfile": "devices",
    "Factor": "structure",
    "FactorizedTensor": "tensor",
    "Measurement": "measurement",
    "Plan": "planner",
    "Shared": "pytrees",
    "Structure": "structure",
    "Task": "task",
    "TrainConfig": "training",
    "FinetuneConfig": "training",
    "compress": "pipeline",
    "decompose": "planner",
    "decompose_tensor": "tensor",
    "evaluate": "training",
    "export": "artifacts",
    "expose_layers": "nn",
    "factorize": "nn",
    "finetune": "training",
    "load_profile": "devices",
    "measure": "measurement",
    "plan": "pipeline",
    "replace_layers": "nn",
    "score": "planner",
    "unlabelled": "data",
    "verify": "verification",
}

__all__ = [
    "Artifact",
    "Budget",
    "Check",
    "Compressed",
    "DeviceProfile",
    "Factor",
    "FactorizedTensor",
    "FinetuneConfig",
    "Measurement",
    "Plan",
    "Shared",
    "Structure",
    "Task",
    "TrainConfig",
    "compress",
    "decompose",
    "decompose_tensor",
    "evaluate",
    "export",
    "expose_layers",
    "factorize",
    "finetune",
    "load_profile",
    "measure",
    "plan",
    "replace_layers",
    "score",
    "unlabelled",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sekron_edge' has no attribute {name!r}")
    value = getattr(import_module(f"sekron_edge.{_HOME[name]}"), name)
    globals()[name] = value
    return value
