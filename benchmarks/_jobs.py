"""What the example jobs deliver: from their bundles, or from the jobs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from sekron_edge.bundle import MANIFEST_NAME, WEIGHTS_NAME
from sekron_edge.cli import ConsoleProgress
from sekron_edge.pipeline import load_config, load_task, run_job, trained_model
from sekron_edge.planner import Plan, decompose
from sekron_edge.task import Task

EXAMPLES = Path(__file__).parents[1] / "examples"
# Of the jobs in int8, against dense int8 in LiteRT: most accuracy lost, least times faster and smaller.
INT8_JOBS = {"fashion_mnist_int8": (0.005, 2.5, 3.0), "cifar_resnet32_int8": (0.005, 1.25, 2.0)}


@dataclass(frozen=True)
class Finished:
    """The dense model of a job, the one that it delivers, and its task."""

    dense: nn.Module
    small: nn.Module
    task: Task


def finished(job: str, bundles: Path) -> Finished:
    """Return what a job of ``examples/`` came to; it is run where its bundle is not in the folder ``bundles``.

    Raises:
        ConfigError, DataError: If its data are not here.
    """
    config = load_config(EXAMPLES / f"{job}.toml")
    bundle = bundles / config.name
    if not (bundle / MANIFEST_NAME).is_file():
        run_job(config, bundle, resume=True, progress=ConsoleProgress())
    task = load_task(config)
    dense = trained_model(config, task, ConsoleProgress())
    small = decompose(dense, Plan.model_validate_json((bundle / "plan.json").read_bytes()))
    small.load_state_dict(load_file(bundle / WEIGHTS_NAME))
    return Finished(dense.eval(), small.eval(), task)
