"""Operations that stay in floats where all others become int8: divisions, norms of what was just computed, ELU.

Eight bits hold values of one magnitude. The variances of samples, or of places in one, are of many: the small ones
would be rounded to zero, and what is divided by their roots would be noise. A divisor of zero is refused by kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ._graph import Graph, Operator

# What leads from a mean of squares to its root, and from the root to what it scales, with a constant or without.
_BESIDE = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "RESHAPE", "TRANSPOSE", "BROADCAST_TO"}
_ROOTS = {"RSQRT", "SQRT"}
_MEANS = {"MEAN", "SUM"}
_SCALING = {"MUL", "DIV"}
_AFFINE = {"MUL", "DIV", "ADD", "SUB"}
_AFTER_EXPONENTIALS = {"SUB", "ADD", "MUL", "SELECT", "SELECT_V2"}


@dataclass(frozen=True, eq=False)
class _Operation:
    """An operation with one result; of its operands, those that are computed."""

    kind: str
    operands: tuple[int, ...]
    divisor: bool
    result: int
    scope: str


def kept_in_floats(graphs: Iterable[Graph]) -> list[str]:
    """Return the scopes of these operations in a float file."""
    scopes: list[str] = []
    for graph in graphs:
        operations = [_operation(graph, one) for one in graph.operators if one.outputs]
        divisions = [one for one in operations if one.kind == "DIV" and one.divisor]
        scopes += [one.scope for one in [*divisions, *_Norms(operations).kept, *_after_exponentials(operations)]]
    return list(dict.fromkeys(scopes))


def _after_exponentials(operations: Sequence[_Operation]) -> Iterator[_Operation]:
    """Yield what ELU and its like make of an exponential, which the quantizer leaves in float by itself.

    The exponentials of positive values, which are thrown away, would take all the range of the integers.
    """
    results = {one.result for one in operations if one.kind == "EXP"}
    for one in operations:
        if one.kind in _AFTER_EXPONENTIALS and results.intersection(one.operands):
            results.add(one.result)
            yield one


def scope_of(graph: Graph, results: Iterable[int]) -> str:
    """Return what ai-edge-quantizer calls an operation: the names of its results.

    All inputs of a graph are the results of one operation, and all outputs are those that another one reads.
    """
    return "".join(f"{name};" for number in results if (name := graph.tensors[number].name))


def _operation(graph: Graph, operator: Operator) -> _Operation:
    computed = [index >= 0 and graph.tensors[index].data is None for index in operator.inputs]
    (result, *_) = operator.outputs
    return _Operation(
        kind=operator.kind,
        operands=tuple(index for index, own in zip(operator.inputs, computed, strict=True) if own),
        divisor=computed[1:2] == [True],
        result=result,
        scope=scope_of(graph, operator.outputs),
    )


class _Norms:
    """The operations of all norms in a graph: from the squares, and the mean that is subtracted, to the scaled values.

    A norm is what scales values by the root of a mean of squares. With ``m`` the mean and ``r`` one over the root, it
    is written as ``(x - m) r g + b``, or ``x (r g) + (b - m r g)``, whose terms cancel each other.
    """

    def __init__(self, operations: list[_Operation]) -> None:
        self._maker = {one.result: one for one in operations}
        self._users: dict[int, list[_Operation]] = {}
        for one in operations:
            for operand in set(one.operands):
                self._users.setdefault(operand, []).append(one)
        self.kept: dict[_Operation, None] = {}
        for one in operations:
            if one.kind in _ROOTS and one.operands:
                self._keep_norm(one)

    def _keep_norm(self, root: _Operation) -> None:
        mean = self._back_to(root.operands[0], _MEANS)
        square = None if mean is None else self._maker.get(mean[-1].operands[0])
        if mean is None or square is None or not self._is_square(square):
            return
        statistics = [root, *mean]
        around = [] if square.kind == "SQUARED_DIFFERENCE" else [self._maker.get(square.operands[0])]
        differences = [square, *(one for one in around if one is not None and one.kind == "SUB")]
        for operand in {operand for one in differences for operand in one.operands}:
            statistics += self._back_to(operand, _MEANS) or []
        self.kept |= dict.fromkeys([*differences, *statistics])
        self._keep_scaled({one.result for one in statistics}, {one.result for one in differences})

    def _back_to(self, tensor: int, kinds: set[str]) -> list[_Operation] | None:
        """Return the operations back to one of some kinds, if nothing else that is computed comes in between."""
        found: list[_Operation] = []
        while (maker := self._maker.get(tensor)) is not None:
            found.append(maker)
            if maker.kind in kinds:
                return found
            if maker.kind not in _BESIDE or len(maker.operands) != 1:
                return None
            (tensor,) = maker.operands
        return None

    @staticmethod
    def _is_square(one: _Operation) -> bool:
        squares = one.kind == "MUL" and len(one.operands) == 2 and len(set(one.operands)) == 1
        return squares or one.kind == "SQUARED_DIFFERENCE"

    def _keep_scaled(self, statistics: set[int], differences: set[int]) -> None:
        """Keep what is computed of statistics alone, what they scale, and what is added to that."""
        waiting, scaled = [*statistics], set[int]()
        while waiting:
            for user in self._users.get(waiting.pop(), ()):
                others = set(user.operands) - statistics
                if user.result in statistics | scaled | differences or user.kind not in _BESIDE:
                    continue
                by_statistics = user.kind in _SCALING and len(others) < len(user.operands)
                if not others:
                    statistics.add(user.result)
                elif by_statistics or (others <= scaled and user.kind in _AFFINE):
                    scaled.add(user.result)
                else:
                    continue
                self.kept[user] = None
                waiting.append(user.result)
