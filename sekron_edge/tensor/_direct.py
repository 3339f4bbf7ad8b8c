"""Decompositions that are good without iteration: SVDs of unfoldings, one after another.

Cores have the shape ``(*label sizes, n_k)``, labels in the order of the structure's ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from sekron_edge.errors import RankError
from sekron_edge.tensor._gram import gram_matrix

# From so many components on, a range finder pays for as many as there are, over the second of these, at most. It looks
# for a few more than are asked for, and sharpens them twice.
_FOUND_FROM, _FEW, _MORE, _POWERS = 128, 6, 8, 2


def orthogonal_split(matrix: Tensor, rank: int, name: str) -> tuple[Tensor, Tensor]:
    """Return ``left (.., m, rank)``, orthonormal, and ``rest (.., rank, n)``, whose product is the best of that rank.

    The rows of ``rest`` are orthogonal, and their norms are the singular values. The split comes from the eigenvectors
    of the smaller Gram matrix: that is several times faster than an SVD of the matrix, and as good where it is
    truncated. Singular values below 1e-8 of the largest come out as noise of that size. Batched over leading axes.

    Raises:
        RankError: If the matrix has no such rank; ``name`` is the label's.
    """
    rows, columns = matrix.shape[-2:]
    limit = min(rows, columns)
    if rank > limit:
        raise RankError(f"{name} must be at most {limit}, got {rank}")
    if rows <= columns:
        left = _leading_eigenvectors(gram_matrix(matrix), rank)
        return left, left.mT @ matrix
    right = _leading_eigenvectors(gram_matrix(matrix.mT), rank)
    left = matrix @ right
    values = torch.linalg.vector_norm(left, dim=-2)
    left = left / values.clamp_min(torch.finfo(matrix.dtype).tiny)[..., None, :]
    return left, values[..., None] * right.mT


def _leading_eigenvectors(gram: Tensor, rank: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(gram)[1]
    return vectors[..., -rank:].flip(-1)


def truncated_svd(matrix: Tensor, rank: int, name: str) -> tuple[Tensor, Tensor]:
    """As `orthogonal_split`, with the singular values split evenly between both sides."""
    left, rest = orthogonal_split(matrix, rank, name)
    root = torch.linalg.vector_norm(rest, dim=-1).sqrt()
    return left * root[..., None, :], rest / root.clamp_min(torch.finfo(matrix.dtype).tiny)[..., None]


def leading_svd(matrix: Tensor, rank: int, name: str) -> tuple[Tensor, Tensor]:
    """As `truncated_svd`; few of many components come from a randomised range finder, and are nearly the leading ones.

    Halko, Martinsson and Tropp 2011 (arXiv 0909.4061), algorithm 4.4, with a seed of its own. The components are
    orthogonal; of a flat spectrum the error is up to 1 % larger than with the leading ones.
    """
    limit = min(matrix.shape[-2:])
    if limit < _FOUND_FROM or rank > limit // _FEW:
        return truncated_svd(matrix, rank, name)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[-1], rank + _MORE, generator=generator, dtype=matrix.dtype).to(matrix.device)
    basis = torch.linalg.qr(matrix @ start).Q
    for _ in range(_POWERS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.mT @ basis).Q).Q
    left, right = truncated_svd(basis.mT @ matrix, rank, name)
    return basis @ left, right


def sekron(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """SeKron's algorithm (arXiv 2210.06299, alg. 1): split off the first factor, then each right factor, batched.

    A right factor that is cut to fewer components than it has leaves others, which belong to the same left component.
    Of all these pairs the largest are taken. A label may therefore have more components than its unfolding has
    directions; CP is the extreme, with all right factors of rank one. The squared error is exactly the squared norm of
    the pairs that are left out.

    Args:
        tensor: ``(n_1, .., n_S)``.
        ranks: S - 1.

    Raises:
        RankError: If a rank is larger than an exact decomposition needs.
    """
    limits = _limits(tensor.shape, ranks)
    for number, (rank, limit) in enumerate(zip(ranks, limits, strict=True), start=1):
        if rank > limit:
            raise RankError(f"r{number} must be at most {limit}, got {rank}")
    _, cores = components(tensor[None], ranks[1:])
    return [core[0, : ranks[0]] for core in cores]


def _limits(sizes: Sequence[int], ranks: Sequence[int]) -> list[int]:
    """Return for each rank of SeKron the number of components that is exact, given the ranks after it."""
    limits: list[int] = []
    sets = 1
    for k in reversed(range(len(ranks))):
        limits.insert(0, sets * min(sizes[k], prod(sizes[k + 1 :])))
        sets = -(-limits[0] // ranks[k])
    return limits


def components(batch: Tensor, ranks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """Split tensors into orthogonal components whose right factors have the given ranks; the largest first.

    Args:
        batch: ``(b, n_1, .., n_S)``.
        ranks: S - 2, of the splits of the right factors.

    Returns:
        Energies ``(b, m)``, the squared norms of all components; cores ``(b, m, n_1)``,
        ``(b, m, r_2, n_2)``, .., ``(b, m, r_2, .., r_{S-1}, n_S)``.
    """
    count, first, *others = batch.shape
    matrix = batch.reshape(count, first, -1)
    known = min(matrix.shape[1:])
    left, right = truncated_svd(matrix, known, "r")
    energies, lefts = left.square().sum(1), left.mT
    if not ranks:
        return energies.square(), [lefts, right]
    rank = ranks[0]
    inner, cores = components(right.reshape(count * known, *others), ranks[1:])
    sets = -(-inner.shape[1] // rank)
    missing = sets * rank - inner.shape[1]
    held = torch.nn.functional.pad(inner, (0, missing)).reshape(count, known, sets, rank).sum(-1)
    descending, order = (energies[..., None] * held).flatten(1).sort(dim=1, descending=True, stable=True)
    which = torch.arange(count, device=batch.device)[:, None], order // sets, order % sets
    chosen = [lefts[which[0], which[1]]]
    for core in cores:
        sides = (0, 0) * (core.ndim - 2) + (0, missing)
        chosen.append(torch.nn.functional.pad(core, sides).reshape(count, known, sets, rank, *core.shape[2:])[which])
    return descending, chosen


def tensor_train(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """TT-SVD (Oseledets 2011, alg. 1): each step is optimal, the whole within sqrt(S - 1) of the optimum.

    After the first core, each step starts from the end that leaves less to split: that is faster, and seldom worse.
    With three cores, the outer two are then solved once more, each given the other: HOOI's step, for Tucker-2.
    """
    sizes, rest = tensor.shape, tensor
    front: list[Tensor] = []
    back: list[Tensor] = []
    before = after = 1
    low, high = 0, len(ranks)
    while low < high:
        left_by_left = ranks[low] * prod(sizes[low + 1 : high + 1]) * after
        left_by_right = before * prod(sizes[low:high]) * ranks[high - 1]
        if low == 0 or left_by_left < left_by_right or not _reachable(sizes, ranks, low, high - 1):
            core, rest = orthogonal_split(rest.reshape(before * sizes[low], -1), ranks[low], f"r{low + 1}")
            front.append(core.reshape(before, sizes[low], ranks[low]))
            before, low = ranks[low], low + 1
        else:
            core, rest = orthogonal_split(rest.reshape(-1, sizes[high] * after).mT, ranks[high - 1], f"r{high}")
            back.insert(0, core.mT.reshape(ranks[high - 1], sizes[high], after))
            rest, after, high = rest.mT, ranks[high - 1], high - 1
    cores = [*front, rest.reshape(before, sizes[low], after), *back]
    if len(ranks) == 2:
        cores = _outer_again(tensor, cores)
    cores = _balanced(cores)
    first, *inner, last = cores
    return [first[0].T, *(core.movedim(1, 2) for core in inner), last[..., 0]]


def _reachable(sizes: Sequence[int], ranks: Sequence[int], low: int, high: int) -> bool:
    """Whether the ranks from ``low`` to before ``high`` remain possible once rank ``high`` is cut to its value."""
    return all(ranks[k] <= prod(sizes[k + 1 : high + 1]) * ranks[high] for k in range(low, high))


def _outer_again(tensor: Tensor, cores: list[Tensor]) -> list[Tensor]:
    """Solve for the space of the first core again, given that of the last, and for the middle between them."""
    _, middle, last = cores
    ranks = middle.shape[0], middle.shape[2]
    norms = torch.linalg.vector_norm(last[..., 0], dim=1)
    if not bool((norms > 0).all()) or ranks[0] > tensor.shape[1] * ranks[1]:
        return cores
    basis = last[..., 0] / norms[:, None]
    seen = tensor @ basis.T
    first, rest = orthogonal_split(seen.reshape(len(seen), -1), ranks[0], "r1")
    return [first[None], rest.reshape(ranks[0], -1, ranks[1]), basis[..., None]]


def _balanced(cores: list[Tensor]) -> list[Tensor]:
    """Give both sides of every label the same norms, component by component, because even scales train well."""
    # Keeps the division defined where a component is zero, and is small enough to alter no other.
    nothing = torch.finfo(cores[0].dtype).tiny
    for k in range(len(cores) - 1):
        ahead = torch.linalg.vector_norm(cores[k], dim=(0, 1))
        behind = torch.linalg.vector_norm(cores[k + 1], dim=(1, 2))
        scale = ((behind + nothing) / (ahead + nothing)).sqrt()
        cores[k] = cores[k] * scale
        cores[k + 1] = cores[k + 1] / scale[:, None, None]
    return cores


def tensor_ring(tensor: Tensor, ranks: Sequence[int]) -> list[Tensor]:
    """TR-SVD (Zhao et al. 2016, alg. 1): the first SVD's rank is divided among both neighbours.

    Where an unfolding has fewer directions than the rank, zeros fill up; refinement replaces them.
    """
    sizes, count = tensor.shape, len(ranks)
    closing = ranks[-1]
    left, right = _padded_svd(tensor.reshape(sizes[0], -1), closing * ranks[0])
    # Core 1 is (closing, n_1, r_1); the closing label moves to the end of the rest.
    cores = [left.reshape(sizes[0], closing, ranks[0]).permute(1, 2, 0)]
    rest = right.reshape(closing, ranks[0], -1).permute(1, 2, 0)
    for k in range(1, count - 1):
        matrix = rest.reshape(ranks[k - 1] * sizes[k], -1)
        left, right = _padded_svd(matrix, ranks[k])
        cores.append(left.reshape(ranks[k - 1], sizes[k], ranks[k]).movedim(1, 2))
        rest = right.reshape(ranks[k], -1, closing)
    cores.append(rest.reshape(ranks[count - 2], sizes[-1], closing).movedim(1, 2))
    return cores


def _padded_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    possible = min(rank, *matrix.shape)
    left, right = truncated_svd(matrix, possible, "r")
    missing = rank - possible
    return torch.nn.functional.pad(left, (0, missing)), torch.nn.functional.pad(right, (0, 0, 0, missing))


def tucker(tensor: Tensor, ranks: Sequence[int], *, sweeps: int = 3) -> list[Tensor]:
    """HOOI (De Lathauwer et al. 2000, alg. 4.2), from the truncated HOSVD. The last axis is the core's, of size 1.

    Args:
        tensor: ``(n_1, .., n_N, 1)``.
        ranks: One for each of the N axes.
        sweeps: Over all axes; each never raises the error.
    """
    tensor = tensor[..., 0]
    axes = range(tensor.ndim)
    bases = [orthogonal_split(_matricized(tensor, k), ranks[k], f"r{k + 1}")[0] for k in axes]
    for _ in range(sweeps):
        for k in axes:
            projected = _projected(tensor, bases, skip=k)
            matrix = _matricized(projected, k)
            # With small other ranks there may be fewer directions than the rank; then the old basis stays.
            if min(matrix.shape) >= ranks[k]:
                bases[k] = orthogonal_split(matrix, ranks[k], f"r{k + 1}")[0]
    core = _projected(tensor, bases, skip=None)
    return [*(basis.T for basis in bases), core[..., None]]


def _matricized(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1)


def _projected(tensor: Tensor, bases: Sequence[Tensor], skip: int | None) -> Tensor:
    for axis, basis in enumerate(bases):
        if axis != skip:
            tensor = torch.tensordot(tensor, basis, dims=([axis], [0])).movedim(-1, axis)
    return tensor
