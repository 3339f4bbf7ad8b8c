"""A factorized tensor as a network on an S-way tensor: axis k runs over all mode indices of factor k.

In this view every coupling is a plain tensor network with one core per factor, of shape ``(*label sizes, n_k)``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import opt_einsum
import torch
from torch import Tensor

from sekron_edge.structure import Shape, Structure
from sekron_edge.tensor._factorized import FactorizedTensor

# Another order of a contraction may cost this many times the cheapest one.
_AS_CHEAP = 1.1
# From this many values of a tensor on, keeping the intermediates that projections share costs less than it saves.
SHARED_FROM = 1e5


class _Contraction:
    """An einsum of several tensors in the best order, which is searched for once.

    opt_einsum and torch search again in every call, which takes longer than a small contraction.
    """

    def __init__(self, equation: str, shapes: tuple[Shape, ...]) -> None:
        _, path = opt_einsum.contract_path(equation, *shapes, shapes=True)
        # Positions, the last first, and the einsum of the tensors there; the result is appended at the end.
        self._steps = [(places, of_pair) for places, _, of_pair, *_ in path.contraction_list]

    def __call__(self, *tensors: Tensor) -> Tensor:
        left = list(tensors)
        for places, equation in self._steps:
            left.append(torch.einsum(equation, *[left.pop(place) for place in places]))
        return left[0]


_contraction = lru_cache(maxsize=4096)(_Contraction)


@lru_cache(maxsize=4096)
def _projection(equation: str, shapes: tuple[Shape, ...]) -> Any:
    """As `_contraction`, for a tensor and cores; a large tensor takes one core at a time if that is as cheap.

    The largest core comes first. Its product with the tensor is then shared by the projections onto all other cores
    (`shared_intermediates`).
    """
    if prod(shapes[0]) < SHARED_FROM:
        return _contraction(equation, shapes)
    order = sorted(range(1, len(shapes)), key=lambda term: -shapes[term][-1])
    # The product of two terms becomes the last term.
    terms, path = list(range(len(shapes))), []
    for term in order:
        pair = terms.index(0), terms.index(term)
        path.append(pair)
        terms = [*(other for other in terms if other not in (0, term)), 0]
    _, best = opt_einsum.contract_path(equation, *shapes, shapes=True)
    _, ordered = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=path)
    if float(ordered.opt_cost) <= _AS_CHEAP * float(best.opt_cost):
        return opt_einsum.contract_expression(equation, *shapes, optimize=path)
    return _contraction(equation, shapes)


@lru_cache(maxsize=4096)
def contraction_costs(equation: str, *shapes: Shape) -> tuple[float, float]:
    """Return a contraction's multiplications in the best order, and the number of values of its largest tensor."""
    _, path = opt_einsum.contract_path(equation, *shapes, shapes=True)
    return float(path.opt_cost) / 2, float(path.largest_intermediate)


def contracted(equation: str, *tensors: Tensor) -> Tensor:
    """Return an einsum, in the best order."""
    if len(tensors) > 2:
        return _contraction(equation, tuple(tuple(tensor.shape) for tensor in tensors))(*tensors)
    pair: Tensor = torch.einsum(equation, *tensors)
    return pair


def unfold(weight: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """Rearrange ``W`` so that axis k runs over the mode indices of factor k: ``(n_1, .., n_S)``."""
    modes, count = weight.ndim, len(shapes)
    split = weight.reshape([shape[n] for n in range(modes) for shape in shapes])
    order = [n * count + k for k in range(count) for n in range(modes)]
    return split.permute(order).reshape([prod(shape) for shape in shapes])


def fold(tensor: Tensor, shapes: Sequence[Shape]) -> Tensor:
    """Undo `unfold`."""
    modes, count = len(shapes[0]), len(shapes)
    split = tensor.reshape([shape[n] for shape in shapes for n in range(modes)])
    order = [k * modes + n for n in range(modes) for k in range(count)]
    return split.permute(order).reshape([prod(shape[n] for shape in shapes) for n in range(modes)])


def core_shape(structure: Structure, k: int) -> tuple[int, ...]:
    """Return the shape of core ``k``: its label sizes, then ``n_k``."""
    factor = structure.factors[k]
    return (*(structure.rank(label) for label in factor.labels), prod(factor.shape))


def cores_of(factorized: FactorizedTensor) -> list[Tensor]:
    """Return the values as cores."""
    structure = factorized.structure
    return [value.reshape(core_shape(structure, k)) for k, value in enumerate(factorized.values)]


def arranged(core: Tensor, labels: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return a core that has an axis for each of ``labels`` with these axes in the order ``wanted``."""
    return core.permute(*(labels.index(label) for label in wanted), core.ndim - 1)


def from_cores(structure: Structure, cores: Sequence[Tensor], dtype: torch.dtype) -> FactorizedTensor:
    """Return cores as a factorized tensor of the given type."""
    values = [core.reshape(structure.value_shape(k)).to(dtype).contiguous() for k, core in enumerate(cores)]
    return FactorizedTensor(structure, tuple(values))


class Network:
    """The contractions of a structure's cores, as einsum equations written once.

    Args:
        structure: Which core carries which label.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        letters = iter(string.ascii_letters)
        self._label = {label: next(letters) for label in structure.labels}
        self._primed = {label: next(letters) for label in structure.labels}
        self._axis = [next(letters) for _ in structure.factors]
        # For each core: the core as it was, and the inner products of its rows.
        self._squares: dict[int, tuple[Tensor, Tensor]] = {}

    def _labels(self, k: int) -> str:
        return "".join(self._label[label] for label in self.structure.factors[k].labels)

    def _term(self, k: int) -> str:
        return self._labels(k) + self._axis[k]

    def _others(self, k: int) -> list[int]:
        return [j for j in range(len(self._axis)) if j != k]

    def full(self, cores: Sequence[Tensor]) -> Tensor:
        """Contract all cores to the S-way tensor."""
        terms = [self._term(k) for k in range(len(cores))]
        return contracted(f"{','.join(terms)}->{''.join(self._axis)}", *cores)

    def environment(self, cores: Sequence[Tensor], k: int) -> Tensor:
        """Contract all cores but ``k``: ``(product of core k's labels, n_j of the others, in order)``."""
        others = self._others(k)
        own = self.structure.factors[k].labels
        wanted = self._labels(k) + "".join(self._axis[j] for j in others)
        environment = contracted(f"{','.join(self._term(j) for j in others)}->{wanted}", *(cores[j] for j in others))
        return environment.reshape(prod(self.structure.rank(label) for label in own), *environment.shape[len(own) :])

    def project(self, tensor: Tensor, cores: Sequence[Tensor], k: int) -> Tensor:
        """Contract ``tensor`` with all cores but ``k``, to core ``k``'s shape: the adjoint of `full` in that core."""
        others = self._others(k)
        terms = ["".join(self._axis), *(self._term(j) for j in others)]
        equation, tensors = f"{','.join(terms)}->{self._term(k)}", (tensor, *(cores[j] for j in others))
        if len(tensors) == 2:
            return contracted(equation, *tensors)
        projected: Tensor = _projection(equation, tuple(tuple(each.shape) for each in tensors))(*tensors)
        return projected

    def gram(self, cores: Sequence[Tensor], k: int) -> Tensor:
        """Return the inner products of the other cores' components, ``(R, R)`` over core ``k``'s labels."""
        own = self.structure.factors[k].labels
        terms, squares = [], []
        for j in self._others(k):
            labels = self.structure.factors[j].labels
            row = "".join(self._label[label] for label in labels)
            column = "".join(self._primed[label] for label in labels)
            terms.append(row + column)
            squares.append(self._square(cores[j], j))
        wanted = "".join(self._label[label] for label in own) + "".join(self._primed[label] for label in own)
        rank = prod(self.structure.rank(label) for label in own)
        return contracted(f"{','.join(terms)}->{wanted}", *squares).reshape(rank, rank)

    def _square(self, core: Tensor, j: int) -> Tensor:
        """Return the inner products of a core's rows, ``(*labels, *labels)``; a sweep needs them several times."""
        known = self._squares.get(j)
        if known is None or known[0] is not core:
            flat, sizes = core.reshape(-1, core.shape[-1]), core.shape[:-1]
            self._squares[j] = known = core, (flat @ flat.T).reshape(*sizes, *sizes)
        return known[1]
