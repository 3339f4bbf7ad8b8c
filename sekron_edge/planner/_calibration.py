"""Calibration inputs of a model, the second moments of its layers' inputs, and how many samples a phase can afford."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property

from torch import Tensor, nn

from sekron_edge.nn import OperationGraph, input_moments, operations
from sekron_edge.pytrees import Inputs, batch_size, batches, first

# A pass of PyTorch over a sample on one core, roughly: MobileNetV2 at 224 pixels takes 0.12 s. Estimates, not clocks,
# decide: a plan must come out the same on a busy machine.
_SECONDS_A_MAC = 1 / 1.5e10
_SECONDS_A_VALUE = 1.2e-8
_SECONDS_A_PHASE = 200.0
# Where the outputs of a sample are an image, or boxes all over one, a few samples are many answers.
_FEWEST_SAMPLES, _FEWEST_IMAGES, _OUTPUTS_OF_IMAGES = 24, 8, 32_768
# Of the run that moments take: a pass, and products of patches that take about as long as two.
_PASSES_OF_MOMENTS = 3
# Of the values that layers write for the samples that run at once.
_BYTES_AT_ONCE = 1 << 30


class Calibration:
    """Real inputs of a model, and the second moments of its layers' inputs.

    Moments of large layers are large, and take a run of the model. They are computed at the first request, and kept as
    long as this object.

    Args:
        model: The original; left as it was.
        inputs: Batched, in the form of `sekron_edge.pytrees.call`; never held-out data.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        self._moments: dict[str, Tensor] = {}
        self._asked: set[str] = set()

    @cached_property
    def _graph(self) -> OperationGraph:
        return operations(self.model, first(self.inputs))

    @cached_property
    def at_once(self) -> int:
        """The samples that may run through the model at once: their values must fit in memory."""
        written = sum(self._graph.elements[operation.writes] for operation in self._graph.operations)
        return max(1, min(batch_size(self.inputs), _BYTES_AT_ONCE // max(1, 4 * written)))

    @cached_property
    def passes_a_phase(self) -> float:
        """How often one sample may run through the model in a phase, as estimated."""
        graph = self._graph
        macs = sum(primitive.macs for operation in graph.operations for primitive in operation.primitives)
        written = sum(graph.elements[operation.writes] for operation in graph.operations)
        return _SECONDS_A_PHASE / max(1e-9, macs * _SECONDS_A_MAC + written * _SECONDS_A_VALUE)

    def affordable(self, passes: float, inputs: Inputs | None = None) -> Inputs:
        """Return as many inputs as a phase of so many passes over the model can afford.

        There are at least 24, or 8 if the outputs of each are many.

        Args:
            passes: Of the whole model, over each sample.
            inputs: To choose from; by default the calibration's own.
        """
        answers = sum(self._graph.elements[value] for value in self._graph.outputs)
        fewest = _FEWEST_SAMPLES if answers < _OUTPUTS_OF_IMAGES else _FEWEST_IMAGES
        count = max(fewest, int(self.passes_a_phase / passes))
        return next(iter(batches(self.inputs if inputs is None else inputs, count)))

    def moments(self, layers: Collection[str]) -> Mapping[str, Tensor]:
        """Return ``E[x x^T]`` of layers' inputs, as `sekron_edge.nn.input_moments` does, for the layers that run.

        Each is computed once, in one run of the model for all that are not known yet, over as many samples as that run
        can afford. Of fewer samples, more places each are looked at.

        Args:
            layers: Names of layers; a name that the model does not have is left out.
        """
        modules = dict(self.model.named_modules(remove_duplicate=False))
        new = {name: modules[name] for name in layers if name in modules and name not in self._asked}
        if new:
            self._asked |= new.keys()
            few = self.affordable(_PASSES_OF_MOMENTS)
            self._moments |= input_moments(self.model, few, new, at_once=self.at_once)
        return {name: self._moments[name] for name in layers if name in self._moments}
