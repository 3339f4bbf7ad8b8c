"""Decomposition: speed and error against TensorLy at equal ranks; errors of all families at equal parameters.

One thread, float32 kernels. Timings are medians of interleaved runs. ``--quick`` leaves out the two larger kernels.
Errors of families without a direct algorithm (CP, TR, SeKron of three factors) are after 20 sweeps of alternating least
squares each. TensorLy's CP starts from an SVD, as it does by default, for kernels of up to 128 channels; for larger
ones that SVD asks for more memory than there is, and it starts from random factors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from statistics import median
from typing import Any

import tensorly
import torch
from rich.console import Console
from tensorly import decomposition
from torch import Tensor

from benchmarks._kernels import random_kernels, trained_kernels
from benchmarks._result import Claim, parser, publish
from sekron_edge.planner import WeightErrors, kronecker_splits, ranks_up_to
from sekron_edge.structure import (
    Structure,
    chain,
    diagonal,
    full,
    mode_by_mode,
    ring,
    spatial_svd,
    tucker2,
    weight_svd,
)
from sekron_edge.tensor import decompose_tensor, order_channels, spectrum

_LARGEST_SVD_START = 128
_RATIOS = (2, 4, 8, 16)
# Families that take alternating least squares: the largest kernels they are run for, and how many sweeps they get.
_LARGEST_SWEPT = {"trained": 512, "random": 256}
_SWEEPS = 20
_LARGEST_ORDERED, _ORDERED_SPLITS, _SWAPS = 128, 2, 3000
# Of structures with three factors: as many are refined to the end, after a few sweeps of all; of large kernels these.
_TRIED_SWEEPS, _KEPT, _LARGEST_TRIED = 5, 2, 256

_Split = tuple[float, tuple[tuple[int, ...], tuple[int, ...]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print and write down."""
    given = parser(__doc__.splitlines()[0]).parse_args(arguments)
    tensorly.set_backend("pytorch")
    widths = (64, 128) if given.quick else (64, 128, 256, 512)
    kernels = {"trained": trained_kernels(widths), "random": random_kernels(widths)}
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    for kind, by_width in kernels.items():
        for width in widths:
            found = list(_against_tensorly(kind, by_width[width]))
            rows += found
            claims += [claim for row in found for claim in _claims(row)]
    for kind, by_width in kernels.items():
        for width in widths:
            for ratio in _RATIOS:
                row = _families(kind, by_width[width], ratio)
                rows.append(row)
                if kind == "trained" and ratio in (2, 4):
                    claims.append(_lowest(row))
    claims += _scoring(trained_kernels(widths)[widths[-1] if given.quick else 256])
    publish(rows, claims, given.json)


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False)


def _against_tensorly(kind: str, weight: Tensor) -> Iterator[dict[str, Any]]:
    width = len(weight)
    rank = width // 4
    start = "svd" if width <= _LARGEST_SVD_START else "random"
    pairs: dict[str, tuple[Callable[[], Any], Structure]] = {
        "Tucker-2": (
            lambda: decomposition.partial_tucker(weight, [rank, rank], modes=[0, 1])[0],
            tucker2(tuple(weight.shape), rank, rank),
        ),
        "CP": (
            lambda: decomposition.parafac(weight, rank, init=start, random_state=0),
            diagonal(mode_by_mode(tuple(weight.shape)), rank),
        ),
        "TT": (
            lambda: decomposition.tensor_train(weight, [1, rank, 8, 3, 1]),
            chain(mode_by_mode(tuple(weight.shape)), [rank, 8, 3]),
        ),
    }
    for method, (theirs, structure) in pairs.items():
        _say(f"{kind} ({width}, {width}, 3, 3): {method}")
        runs = 1 if method == "CP" and width >= _LARGEST_SVD_START else 15 if width <= _LARGEST_SVD_START else 3
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs):
            reference, taken = _timed(theirs)
            seconds[0].append(taken)
            ours, taken = _timed(partial(decompose_tensor, weight, structure))
            seconds[1].append(taken)
        yield {
            "kernel": f"{kind} {width}",
            "method": method,
            "rank": rank,
            "TensorLy s": median(seconds[0]),
            "ours s": median(seconds[1]),
            "faster": median(seconds[0]) / median(seconds[1]),
            "TensorLy error": _error(weight, reference),
            "our error": ours.relative_error(weight),
        }


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def _error(weight: Tensor, found: Any) -> float:
    if isinstance(found, tuple):  # partial_tucker: a core, and the factors of the first two modes
        core, factors = found
        dense = tensorly.tenalg.multi_mode_dot(core, factors, modes=[0, 1])
    else:
        dense = found.to_tensor()
    return float(torch.linalg.vector_norm(weight - dense) / torch.linalg.vector_norm(weight))


def _claims(row: dict[str, Any]) -> list[Claim]:
    name, least = f"{row['kernel']}, {row['method']}", 2.0 if row["method"] == "TT" else 5.0
    return [
        Claim(name=f"{name}: times faster than TensorLy", value=row["faster"], relation=">=", limit=least),
        Claim(
            name=f"{name}: error over TensorLy's",
            value=row["our error"] / row["TensorLy error"],
            relation="<=",
            limit=1.01,
        ),
    ]


def _families(kind: str, weight: Tensor, ratio: int) -> dict[str, Any]:
    """Return the least error of each family with at most 1 / ratio of the parameters."""
    width = len(weight)
    _say(f"{kind} ({width}, {width}, 3, 3): all families at {ratio}x fewer parameters")
    budget = weight.numel() // ratio
    swept = width <= _LARGEST_SWEPT[kind]
    two = _best_splits(weight, budget)
    return {
        "kernel": f"{kind} {width}",
        "fewer parameters": ratio,
        "weight SVD": _least(weight, _ladder(lambda r: weight_svd(tuple(weight.shape), r), budget)),
        "spatial SVD": _least(weight, _ladder(lambda r: spatial_svd(tuple(weight.shape), r), budget)),
        "Tucker-2": _least(weight, _tucker2(weight, budget)),
        "CP": _least(weight, _cp(weight, budget), _SWEEPS) if swept else None,
        "TT": _least(weight, _tensor_trains(weight, budget)),
        "TR": _least(weight, _tensor_rings(weight, budget), _SWEEPS) if swept else None,
        "SeKron S=2": two[0][0],
        "SeKron S=2, channels ordered": _least_ordered(weight, two, budget) if width <= _LARGEST_ORDERED else None,
        "SeKron S=3": _least(weight, _triples(weight, budget), _SWEEPS) if swept else None,
    }


def _least(weight: Tensor, structures: list[Structure], sweeps: int | None = None) -> float | None:
    errors = [decompose_tensor(weight, structure, sweeps=sweeps).relative_error(weight) for structure in structures]
    return min(errors, default=None)


def _ladder(build: Callable[[int], Structure], budget: int) -> list[Structure]:
    """Return the structure of the largest rank within the budget."""
    unit = build(1).num_params
    return [build(budget // unit)] if unit <= budget else []


def _tucker2(weight: Tensor, budget: int) -> list[Structure]:
    out, inp, *kernel = weight.shape
    found = []
    for rank_out in {round(out * share / 16) for share in range(1, 17)} - {0}:
        rank_in = (budget - out * rank_out) // (inp + rank_out * prod(kernel))
        rank_in = min(inp, rank_in, rank_out * prod(kernel))
        if rank_in >= 1 and rank_out <= rank_in * prod(kernel):
            found.append(tucker2(tuple(weight.shape), rank_out, rank_in))
    return sorted(found, key=lambda s: -s.num_params)


def _cp(weight: Tensor, budget: int) -> list[Structure]:
    return _ladder(lambda rank: diagonal(mode_by_mode(tuple(weight.shape)), rank), budget)


def _tensor_trains(weight: Tensor, budget: int) -> list[Structure]:
    """Return trains over the modes in the orders F C Kh Kw and F Kh Kw C, that fill the budget."""
    out, inp, height, width = weight.shape
    modes = mode_by_mode(tuple(weight.shape))
    found = []
    for second in range(1, height * width + 1):
        third = min(width, second * height)
        rest = height * second * third + third * width
        rank = min(out, (budget - rest) // (out + inp * second))
        if rank >= 1 and second <= rank * inp:
            found.append(chain(modes, [rank, second, third]))
    order = [modes[k] for k in (0, 2, 3, 1)]
    for first in {round(out * share / 16) for share in range(1, 17)} - {0}:
        second = first * height
        last = min(inp, (budget - out * first - first * height * second) // (second * width + inp))
        if 1 <= last <= second * width:
            found.append(chain(order, [first, second, last]))
    return [structure for structure in found if structure.num_params <= budget]


def _tensor_rings(weight: Tensor, budget: int) -> list[Structure]:
    """Return the ring of equal ranks that fills the budget."""
    modes = mode_by_mode(tuple(weight.shape))
    rank = int((budget / sum(weight.shape)) ** 0.5)
    return [ring(modes, [rank] * 4)] if rank else []


def _best_splits(weight: Tensor, budget: int) -> list[_Split]:
    """Return all two-factor splits with the error of the largest rank within the budget, the best first."""
    ranks = {
        (first, second): min(budget // (prod(first) + prod(second)), prod(first), prod(second))
        for first, second in kronecker_splits(tuple(weight.shape))
    }
    splits = [split for split, rank in ranks.items() if rank >= 1]
    errors = WeightErrors(weight[None])([full(list(split), [ranks[split]]) for split in splits])
    return sorted(zip(errors, splits, strict=True))


def _least_ordered(weight: Tensor, splits: Sequence[_Split], budget: int) -> float | None:
    """Return the least error of the best splits of channels, after a search for an order of channels."""
    width = len(weight)
    of_channels = [shapes for _, shapes in splits if any(1 < shapes[0][mode] < width for mode in (0, 1))]
    errors = []
    for first, second in of_channels[:_ORDERED_SPLITS]:
        rank = min(budget // (prod(first) + prod(second)), prod(first), prod(second))
        errors.append(order_channels(weight, full([first, second], [rank]), swaps=_SWAPS).relative_error)
    return min(errors, default=None)


def _triples(weight: Tensor, budget: int) -> list[Structure]:
    """Return the most promising structures of three factors that fill the budget.

    One factor has one kind of channels, the second the other kind or a part of it, the third the kernel and the rest;
    or both kinds are halved. Right factors are of few components, the outer label of as many as there is room for.
    """
    out, inp, *kernel = weight.shape
    found = []
    for part in (1, 2, 4):
        second, third = (1, inp // part, 1, 1), (1, part, *kernel)
        found += _filled([(out, 1, 1, 1), second, third], budget)
        second, third = (out // part, 1, 1, 1), (part, 1, *kernel)
        found += _filled([(1, inp, 1, 1), second, third], budget)
    found += _filled([(out // 2, 1, 1, 1), (1, inp // 2, 1, 1), (2, 2, *kernel)], budget)
    if out > _LARGEST_TRIED:
        return [structure for structure in found if structure.factors[1].shape == (out // 2, 1, 1, 1)][1:2]
    tried = {s: decompose_tensor(weight, s, sweeps=_TRIED_SWEEPS).relative_error(weight) for s in found}
    return sorted(tried, key=lambda structure: tried[structure])[:_KEPT]


def _filled(shapes: Sequence[tuple[int, ...]], budget: int) -> list[Structure]:
    first, *others = (prod(shape) for shape in shapes)
    ranks = [(budget // (first + inner * sum(others)), inner) for inner in (1, 2, 3)]
    return [full(shapes, list(pair)) for pair in ranks if pair[0]]


def _lowest(row: dict[str, Any]) -> Claim:
    sekron = min(value for name, value in row.items() if name.startswith("SeKron") and value is not None)
    others = [v for k, v in row.items() if k not in ("kernel", "fewer parameters") and not k.startswith("SeKron")]
    least = min(value for value in others if value is not None)
    name = f"{row['kernel']}, {row['fewer parameters']}x fewer parameters: SeKron's error over the best other's"
    # Spatial SVD is a two-factor split too: equal but for rounding is equal.
    return Claim(name=name, value=round(sekron / least, 4), relation="<=", limit=1.0)


def _scoring(weight: Tensor) -> list[Claim]:
    """Score all splits and ranks of a kernel, against one SVD for each (a sample of the splits is timed)."""
    _say(f"scoring all splits of ({len(weight)}, {len(weight)}, 3, 3)")
    splits = list(kronecker_splits(tuple(weight.shape)))
    ranks = [ranks_up_to(min(prod(first), prod(second))) for first, second in splits]

    def all_errors() -> list[list[float]]:
        structures = [full(list(s), [r]) for s, ladder in zip(splits, ranks, strict=True) for r in ladder]
        errors = iter(WeightErrors(weight[None])(structures))
        return [[next(errors) for _ in ladder] for ladder in ranks]

    ours, taken = _timed(all_errors)
    sample = range(0, len(splits), 12)
    worst, svds, counted = 0.0, 0.0, 0
    for index in sample:
        reference, seconds = _timed(partial(spectrum, weight, list(splits[index])))
        svds += seconds * len(ranks[index])
        counted += len(ranks[index])
        for rank, error in zip(ranks[index], ours[index], strict=True):
            expected = reference.relative_error(rank)
            worst = max(worst, abs(error - expected) / max(expected, 1e-12))
    total = svds / counted * sum(map(len, ranks))
    name = f"all {sum(map(len, ranks)):,} two-factor structures of ({len(weight)}, {len(weight)}, 3, 3)"
    return [
        Claim(name=f"{name}: times faster than an SVD each", value=total / taken, relation=">=", limit=20.0),
        Claim(name=f"{name}: largest relative difference", value=worst, relation="<=", limit=1e-4),
    ]


if __name__ == "__main__":
    main()
