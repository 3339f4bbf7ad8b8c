"""The description of a resource that a budget may limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sekron_edge.budget._costs import LayerCost
from sekron_edge.budget._evidence import Evidence, Finding
from sekron_edge.errors import ConfigError

# Counts a resource in the `sekron_edge.primitives` that a layer runs.
Count = Callable[[Sequence[Any]], float]
Look = Callable[[Evidence], Finding | None]


@dataclass(frozen=True)
class Resource:
    """Something that a deployed model takes, and that a budget may limit.

    Attributes:
        name: The budget's key.
        unit: Of its figures; empty for counts.
        meaning: Its meaning, in a few words.
        predict: The figure of `LayerCost` that plans bound, or how it is counted in the operations of a layer, as
            `sekron_edge.primitives` has them. None: it is only judged at the end.
        predicted: Words for a figure that is known only from the plan; ``{device}`` is the target.
        evidence: Functions that find it, measured or counted, in an artifact. The first finding counts, before the
            prediction.
        adds_up: How layers' figures make the model's: by their ``sum``, or by the largest (``max``).
        beside: What a layer's figure includes beside its own, in words that follow the figure.
        headroom: Share of the limit that plans aim for, if it is measured again at the end.
        corrected: Whether trials of plans correct the predictions. For other resources the limit is tightened by the
            overrun, and less than the prediction is impossible.
        compared: Whether saving this resource only is a reason to keep a candidate. Not where that saves as much of
            another resource.
        device_fact: The fact of a device's profile that limits it, where a budget does not.
        whole: Whether it is shown in whole numbers.
        title: Of its column in tables of plans; by default the name.

    Raises:
        ConfigError: If it is neither predicted nor found, or the name cannot be a key.
    """

    name: str
    unit: str
    meaning: str
    predict: str | Count | None = None
    predicted: str = "predicted, not measured"
    evidence: tuple[Look, ...] = ()
    adds_up: Literal["sum", "max"] = "sum"
    beside: str = ""
    headroom: float = 1.0
    corrected: bool = False
    compared: bool = True
    device_fact: str | None = None
    whole: bool = True
    title: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ConfigError(f"a resource's name must be a plain key such as latency_ms, not {self.name!r}")
        if self.predict is None and not self.evidence:
            raise ConfigError(f"the resource {self.name!r} is never found: state how it is predicted, or its evidence")

    @property
    def is_planned(self) -> bool:
        """Whether plans can be solved for it."""
        return self.predict is not None

    @property
    def count(self) -> Count | None:
        """How it is counted in a layer's operations; None where it is one of the figures of every cost."""
        return self.predict if callable(self.predict) else None

    @property
    def figure(self) -> str:
        """Its name among the figures of `LayerCost`."""
        return self.predict if isinstance(self.predict, str) else self.name

    def amount(self, cost: LayerCost) -> float:
        """Return how much of it a layer, or a model, is predicted to take.

        Raises:
            ConfigError: If it was not counted when the model was scored.
        """
        return cost.amount(self.figure)

    def finding(self, evidence: Evidence) -> Finding | None:
        """Return the most trusted finding of it; None if there is none."""
        for look in self.evidence:
            finding = look(evidence)
            if finding is not None:
                return finding
        model, dense = evidence.found.predicted, evidence.dense.predicted
        if not self.is_planned or model is None or dense is None:
            return None
        return Finding(self.amount(model), self.amount(dense), self.predicted.format(device=evidence.device))

    def shown(self, value: float) -> str:
        """Return a figure in the form that people read."""
        return f"{value:,.0f}" if self.whole else f"{value:.4g}"
