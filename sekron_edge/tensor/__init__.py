"""Tensors in, factors out: pure, in torch, without modules or files.

Requirements kept here: inputs are never modified; results have the input's dtype and device; decompositions run in
double precision inside, unless float32 is asked for; the spectrum's error equals the error of the factors; refinement
never raises the error.
"""

from sekron_edge.tensor._decompose import (
    check_weight,
    decompose_tensor,
    is_split,
    leading_components,
    unfolding_vectors,
    unrefined,
)
from sekron_edge.tensor._direct import orthogonal_split
from sekron_edge.tensor._exchange import from_tensorly, to_tensorly
from sekron_edge.tensor._factorized import FactorizedTensor
from sekron_edge.tensor._gram import gram_matrix
from sekron_edge.tensor._network import unfold
from sekron_edge.tensor._order import ChannelOrder, order_channels
from sekron_edge.tensor._output_split import OutputSplit, outputs_factor
from sekron_edge.tensor._refine import refine
from sekron_edge.tensor._removal import Reader, Removal, removal, solved_again
from sekron_edge.tensor._seen import SeenMoments
from sekron_edge.tensor._spectrum import Spectrum, spectrum

__all__ = [
    "ChannelOrder",
    "FactorizedTensor",
    "OutputSplit",
    "Reader",
    "Removal",
    "SeenMoments",
    "Spectrum",
    "check_weight",
    "decompose_tensor",
    "from_tensorly",
    "gram_matrix",
    "is_split",
    "leading_components",
    "order_channels",
    "orthogonal_split",
    "outputs_factor",
    "refine",
    "removal",
    "solved_again",
    "spectrum",
    "to_tensorly",
    "unfold",
    "unfolding_vectors",
    "unrefined",
]
