"""Factors read from TensorLy and written for it: CP, Tucker, tensor train and tensor ring.

TensorLy is not needed to read its objects: they are recognised by their class's name and attributes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sekron_edge.errors import MissingDependencyError, StructureError
from sekron_edge.structure import Shape, chain, diagonal, mode_by_mode, ring, star
from sekron_edge.tensor._factorized import FactorizedTensor
from sekron_edge.tensor._network import arranged, cores_of, from_cores

_READABLE = ("CPTensor", "TuckerTensor", "TTTensor", "TRTensor")


def from_tensorly(factors: Any) -> FactorizedTensor:
    """Read a ``CPTensor``, ``TuckerTensor``, ``TTTensor`` or ``TRTensor`` of TensorLy's torch backend.

    Returns:
        The same tensor, with one factor per mode (and a core for Tucker); values are shared or rearranged, not fitted.

    Raises:
        StructureError: If it is of another class.
    """
    kind = type(factors).__name__
    if kind == "CPTensor":
        matrices = list(factors.factors)
        if factors.weights is not None:
            matrices[0] = matrices[0] * factors.weights
        shapes = _shapes(matrices)
        structure = diagonal(shapes, matrices[0].shape[1])
        return from_cores(structure, [matrix.T for matrix in matrices], matrices[0].dtype)
    if kind == "TuckerTensor":
        matrices = list(factors.factors)
        structure = star(_shapes(matrices), [matrix.shape[1] for matrix in matrices])
        cores = [*(matrix.T for matrix in matrices), factors.core[..., None]]
        return from_cores(structure, cores, factors.core.dtype)
    if kind == "TTTensor":
        first, *rest = cores = [core.movedim(1, 2) for core in factors.factors]
        cores = [first[0], *rest[:-1], rest[-1][:, 0]]
        shapes = mode_by_mode(tuple(core.shape[-1] for core in cores))
        return from_cores(chain(shapes, [core.shape[0] for core in rest]), cores, first.dtype)
    if kind == "TRTensor":
        cores = [core.movedim(1, 2) for core in factors.factors]
        shapes = mode_by_mode(tuple(core.shape[-1] for core in cores))
        return from_cores(ring(shapes, [core.shape[1] for core in cores]), cores, cores[0].dtype)
    raise StructureError(f"only {', '.join(_READABLE)} of TensorLy can be read, got {kind}")


def to_tensorly(factorized: FactorizedTensor) -> Any:
    """Return the same factors as TensorLy's object of the coupling.

    Factor k must span mode k only (and the core of ``star`` no mode), as factors that were read from TensorLy do.

    Raises:
        StructureError: If the coupling has no counterpart, or a factor spans other modes.
        MissingDependencyError: If TensorLy is absent.
    """
    structure = factorized.structure
    shapes = [factor.shape for factor in structure.factors]
    coupling = structure.coupling
    spanned = shapes[:-1] if coupling == "star" else shapes
    if spanned != mode_by_mode(structure.shape):
        raise StructureError(f"TensorLy's factors span one mode each, in order; got {structure}")
    try:
        from tensorly.cp_tensor import CPTensor
        from tensorly.tr_tensor import TRTensor
        from tensorly.tt_tensor import TTTensor
        from tensorly.tucker_tensor import TuckerTensor
    except ImportError as error:
        raise MissingDependencyError("tensorly", "tensorly") from error
    cores = [
        arranged(core, factor.labels, structure.canonical_labels(k))
        for k, (core, factor) in enumerate(zip(cores_of(factorized), structure.factors, strict=True))
    ]
    if coupling == "diagonal":
        return CPTensor((None, [core.T for core in cores]))
    if coupling == "star":
        return TuckerTensor((cores[-1][..., 0], [core.T for core in cores[:-1]]))
    if coupling == "chain" or (coupling == "full" and len(cores) == 2):
        first, *inner, last = cores
        return TTTensor([first.T[None], *(core.movedim(2, 1) for core in inner), last[..., None]])
    if coupling == "ring":
        return TRTensor([core.movedim(2, 1) for core in cores])
    raise StructureError(
        f"TensorLy has no counterpart of the coupling {coupling!r}; reconstruct() gives the tensor itself"
    )


def _shapes(matrices: list[Tensor]) -> list[Shape]:
    return mode_by_mode(tuple(matrix.shape[0] for matrix in matrices))
