"""What reconstruction did, block by block."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BlockReconstruction(BaseModel):
    """One block with factorized layers; errors are on inputs that nothing was fitted to.

    Errors are mean squared errors of the block's outputs against the original's, as shares of these outputs' variance;
    those that earlier blocks bring are in them.

    Attributes:
        layers: Names of its factorized layers, in the order in which they run.
        decomposed: The error with the factors of the decomposition.
        solved: With the factors for what the layers really see, by least squares.
        fitted: After the steps of Adam.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[str, ...]
    decomposed: float
    solved: float
    fitted: float


class ReconstructionReport(BaseModel):
    """Reconstruction of a whole network.

    Attributes:
        samples: Number of inputs that were used; a quarter of them judged.
        steps: Of Adam, a block.
        blocks: In the order in which they run.
        left: Why layers were not solved for, by their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    steps: int
    blocks: tuple[BlockReconstruction, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        if not self.blocks:
            return f"nothing to reconstruct: {next(iter(self.left.values()), 'no layer has factors')}"
        last = self.blocks[-1]
        said = (
            f"reconstructed {len(self.blocks)} blocks on {self.samples} inputs without labels: relative error of the "
            f"last {last.decomposed:.3f} as decomposed, {last.solved:.3f} solved, {last.fitted:.3f} fitted"
        )
        return f"{said}; {len(self.left)} layers not solved for" if self.left else said
