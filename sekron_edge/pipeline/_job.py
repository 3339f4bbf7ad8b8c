"""A job: a trained model, its task, its target, and the budget that it must keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from sekron_edge import pytrees
from sekron_edge.budget import HALF_THE_TIME, Budget
from sekron_edge.data import referenced, require_task
from sekron_edge.nn import admitted, exportable_inputs, expose_layers, outputs_for, require_rounded
from sekron_edge.pipeline._models import require_numbers, state_fingerprint
from sekron_edge.pipeline._samples import calibration_inputs, data_fingerprint, require_alike
from sekron_edge.pipeline._target import Target
from sekron_edge.planner import EVERY_LAYER, LayerSelection
from sekron_edge.quantization import QuantizationConfig
from sekron_edge.reconstruction import ReconstructionConfig
from sekron_edge.task import Task
from sekron_edge.training import FinetuneConfig, TrainConfig


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that decides the result of a job.

    Attributes:
        model: Trained, with its layers exposed (`sekron_edge.expose_layers`); left untouched.
        example_inputs: A batch of 1, in the form of `sekron_edge.pytrees.call`; their shapes become the artifacts'.
        task: What the model is for.
        target: The device, and the formats that are delivered for it.
        budget: What the artifact must keep.
        reconstruction: How blocks are corrected before that.
        finetuning: How to distil.
        quantization: When to train against rounding, and what to keep in float, if a precision is int8.
        selection: The layers that may be compressed.
        name: Name of the bundle, and stem of its artifacts.
        seed: Recorded in the plan and in the bundle.
    """

    model: nn.Module
    example_inputs: pytrees.Inputs
    task: Task
    target: Target
    budget: Budget = HALF_THE_TIME
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    finetuning: TrainConfig = field(default_factory=FinetuneConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    selection: LayerSelection = EVERY_LAYER
    name: str = "model"
    seed: int = 0

    @classmethod
    def prepared(
        cls, model: nn.Module, example_inputs: pytrees.Inputs, task: Task, target: Target, **settings: Any
    ) -> Job:
        """Return the job of a user's model.

        Args:
            model: Any module; left untouched. The job has a copy with its layers exposed.
            example_inputs: As the model takes them; floats become float32.
            task: Without labels, the model's outputs become the targets.
            target: The device and its formats.
            **settings: The other attributes.

        Raises:
            ConfigError: If the model is no module, does not take the inputs, or gives no tensors, or NaN; or if it has
                no layer of a name to be kept in float.
            DataError: If the task has a split without samples, or samples unlike the example inputs.
            ExportError: If torch.export cannot trace it.
        """
        require_task(task)
        module = admitted(model)
        inputs = exportable_inputs(example_inputs, module)
        exposed = expose_layers(module, inputs)
        require_numbers(exposed, outputs_for(exposed, inputs))
        require_rounded(settings.get("quantization", QuantizationConfig()).named_floats, exposed, inputs)
        require_alike(task, inputs)
        return cls(exposed, inputs, referenced(task, exposed), target, **settings)

    @cached_property
    def calibration_inputs(self) -> pytrees.Inputs:
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
            "reconstruction section": self.reconstruction.model_dump_json(),
            "finetune section": self.finetuning.model_dump_json(exclude={"threads"}),
            "quantization section": self.quantization.model_dump_json(),
            "plan section": self.selection.model_dump_json(),
            "seed": str(self.seed),
        }
