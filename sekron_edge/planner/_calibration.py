"""Calibration inputs of a model, and the second moments of its layers' inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from sekron_edge.nn import input_moments
from sekron_edge.pytrees import Inputs


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
        self._moments: Mapping[str, Tensor] | None = None
        self._asked: set[str] = set()

    def moments(self, layers: Collection[str]) -> Mapping[str, Tensor]:
        """Return ``E[x x^T]`` of layers' inputs, as `sekron_edge.nn.input_moments` does, for the layers that run.

        The first result is shared with later requests for the same layers, and with no others: the places of large
        images are drawn layer by layer, so the places of a layer depend on the layers before it.

        Args:
            layers: Names of layers; a name that the model does not have is left out.
        """
        asked = set(layers)
        if self._moments is not None:
            return self._moments if asked in (self._asked, self._moments.keys()) else self._computed(asked)
        self._asked, self._moments = asked, self._computed(asked)
        return self._moments

    def _computed(self, layers: Collection[str]) -> Mapping[str, Tensor]:
        modules = dict(self.model.named_modules(remove_duplicate=False))
        return input_moments(self.model, self.inputs, {name: modules[name] for name in layers if name in modules})
