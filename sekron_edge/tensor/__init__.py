"""Tensors in, factors out: pure, in torch, without modules or files.

Requirements kept here: inputs are never modified; results have the input's dtype and device; decompositions
run in double precision inside; the spectrum's error equals the error of the factors.
"""

from sekron_edge.tensor._decompose import Spectrum, decompose_tensor, spectrum
from sekron_edge.tensor._factorized import FactorizedTensor

__all__ = ["FactorizedTensor", "Spectrum", "decompose_tensor", "spectrum"]
