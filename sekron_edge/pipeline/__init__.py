"""The main job: config in, bundle out. The only wiring of all parts.

Requirements kept here: a bundle appears whole or not at all; a killed job goes on where it was; held-out data gives
final figures only; what is delivered was measured against every budget, or says that it was not.
"""

from sekron_edge.pipeline._compress import Compressed, compress, compress_job, plan, plan_of
from sekron_edge.pipeline._config import JobConfig, load_config
from sekron_edge.pipeline._context import evaluator_for
from sekron_edge.pipeline._from_config import frontier_job, load_task, plan_job, run_job, trained_model
from sekron_edge.pipeline._job import Job
from sekron_edge.pipeline._models import load_model, state_fingerprint
from sekron_edge.pipeline._progress import LogProgress, Progress
from sekron_edge.pipeline._samples import calibration_inputs, example_inputs, training_inputs
from sekron_edge.pipeline._target import Target

__all__ = [
    "Compressed",
    "Job",
    "JobConfig",
    "LogProgress",
    "Progress",
    "Target",
    "calibration_inputs",
    "compress",
    "compress_job",
    "evaluator_for",
    "example_inputs",
    "frontier_job",
    "load_config",
    "load_model",
    "load_task",
    "plan",
    "plan_job",
    "plan_of",
    "run_job",
    "state_fingerprint",
    "trained_model",
    "training_inputs",
]
