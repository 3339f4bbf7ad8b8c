"""A job: a trained model, its task, its target, and the budget that it must keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.pipeline._models import state_fingerprint
from sekron_edge.pipeline._samples import calibration_inputs, data_fingerprint
from sekron_edge.pipeline._target import Target
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that decides the result of a job.

    Attributes:
        model: Trained, with its layers exposed (`sekron_edge.expose_layers`); left untouched.
        example_inputs: One tensor per input, a batch of 1; their shapes become the artifacts'.
        task: What the model is for.
        target: The device, and the formats that are delivered for it.
        budget: What the artifact must keep.
        finetuning: How to distil.
        quantization: When to train against rounding, if a precision is int8.
        name: Name of the bundle, and stem of its artifacts.
        seed: Recorded in the plan and in the bundle.
    """

    model: nn.Module
    example_inputs: tuple[Tensor, ...]
    task: Task
    target: Target
    budget: Budget = HALF_THE_TIME
    finetuning: TrainConfig = field(default_factory=FinetuneConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    name: str = "model"
    seed: int = 0

    @cached_property
    def calibration_inputs(self) -> Tensor:
        """The task's calibration inputs as one batch, collated once."""
        return calibration_inputs(self.task)

    @property
    def is_rounded(self) -> bool:
        """Whether an artifact in int8 is delivered."""
        return "int8" in self.target.precisions

    def settings(self) -> dict[str, str]:
        """Return the settings that decide the result, by their names for users."""
        target = self.target
        return {
            "model": state_fingerprint(self.model),
            "data": data_fingerprint(self.calibration_inputs, self.task),
            "budget": self.budget.model_dump_json(),
            "device": target.profile.id,
            "measured_on": str(target.place.name),
            "runtime": target.runtime,
            "formats": ", ".join(target.formats),
            "precision": ", ".join(target.precisions),
            "threads": str(target.threads),
            "finetune section": self.finetuning.model_dump_json(exclude={"threads"}),
            "quantization section": self.quantization.model_dump_json(),
            "seed": str(self.seed),
        }
