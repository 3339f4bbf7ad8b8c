"""Settings of reconstruction."""

from __future__ import annotations

from pydantic import Field

from sekron_edge.settings import Settings


class ReconstructionConfig(Settings):
    """How a decomposed network is corrected, block by block, before it is distilled.

    Attributes:
        samples: Most training inputs that are used, without their labels; fewer where blocks would take too long. 0:
            nothing is corrected.
        steps: Steps of Adam a block, after its layers were solved for; 0: none.
        learning_rate: Of these steps, at its peak.
        effort: Multiplies the time that a job takes for it, about 200 seconds of one core: samples and steps are fewer
            where they would take longer.
    """

    samples: int = Field(default=2048, ge=0)
    steps: int = Field(default=300, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    effort: float = Field(default=1.0, gt=0)
