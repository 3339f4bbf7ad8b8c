"""The predicted cost of a layer, or of a whole model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from sekron_edge.errors import ConfigError

# Of the figures that every cost has; the others are sums.
LARGEST_OF_LAYERS = frozenset({"peak_bytes"})


class LayerCost(BaseModel):
    """The predicted cost of a layer, or of a whole model.

    ``peak_bytes`` is the most that activations take at once while it runs, those of other layers that are needed later
    among them. ``activation_bytes`` is what convolutions and permutes write, ``permuted_bytes`` what permutes do.
    Resources that are counted in operations have a figure of their own name beside these.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, float]

    parameters: int
    macs: int
    artifact_bytes: float
    latency_ms: float
    peak_bytes: int
    activation_bytes: int = 0
    permuted_bytes: int = 0

    @property
    def further(self) -> dict[str, float]:
        """The figures beyond the seven that every cost has, by name."""
        return self.__pydantic_extra__

    def amount(self, figure: str) -> float:
        """Return one of the figures.

        Raises:
            ConfigError: If it was not counted.
        """
        amount: float | None = getattr(self, figure, None)
        if amount is None:
            raise ConfigError(
                f"{figure!r} was not counted when this model was scored: register the resource first, then score"
            )
        return amount
