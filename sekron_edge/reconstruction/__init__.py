"""From a decomposed network to one whose blocks compute what the original's do: without labels, on real inputs.

Requirements kept here: the given models are left as they were; a block is changed only where that is better on inputs
that nothing was fitted to; what could not be done is left as it was, with a named reason.
"""

from sekron_edge.reconstruction._config import ReconstructionConfig
from sekron_edge.reconstruction._reconstruct import batch_for, reconstruct
from sekron_edge.reconstruction._report import BlockReconstruction, ReconstructionReport

__all__ = ["BlockReconstruction", "ReconstructionConfig", "ReconstructionReport", "batch_for", "reconstruct"]
