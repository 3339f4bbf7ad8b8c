"""Blocks in the order in which they run, each corrected for the errors of those before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

from torch import nn

from sekron_edge.nn import Block, PairedMoments, RunnableGraph, blocks_of
from sekron_edge.pytrees import Inputs, batch_size, batches, tensors
from sekron_edge.reconstruction._config import ReconstructionConfig
from sekron_edge.reconstruction._fitting import fit_block_
from sekron_edge.reconstruction._network import DecomposedNetwork
from sekron_edge.reconstruction._report import BlockReconstruction, ReconstructionReport
from sekron_edge.reconstruction._solving import solve_layer_
from sekron_edge.reconstruction._streams import Streams
from sekron_edge.structure import Structure

_BATCH = 128
_FEWEST_BATCHES = 4
# Values between blocks are kept for all inputs, in both networks.
_MOST_BYTES = 2 << 30


def batch_for(samples: int) -> int:
    """Return the size of the batches that so many samples are divided into; 0 if they are too few."""
    return min(_BATCH, samples // _FEWEST_BATCHES)


def reconstruct(
    small: nn.Module,
    original: nn.Module,
    structures: Mapping[str, Structure],
    inputs: Inputs,
    *,
    config: ReconstructionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[nn.Module, ReconstructionReport]:
    """Return a copy of a decomposed model whose blocks compute, as nearly as they can, what the original's do.

    Block by block, in the order in which they run: each factorized layer is solved for again by least squares, for the
    inputs that it sees behind the layers before it; then Adam fits the block's factors, biases and norms to its output.
    Blocks come one after another because each sees the errors that are left by those before it.

    Args:
        small: The model that `sekron_edge.decompose` returned. Its batch norms are to be settled afterwards.
        original: The model that it was made of.
        structures: Those of the plan, by layer.
        inputs: Real inputs without labels, batched, in the form of `sekron_edge.pytrees.call`; never held-out data.
        config: Settings; the defaults if None.
        progress: Called with the number of finished blocks, and of all blocks.

    Raises:
        ExportError: If the original cannot be traced.
    """
    config = config or ReconstructionConfig()
    small = deepcopy(small)
    count = min(batch_size(inputs), config.samples)
    size = batch_for(count)
    if size == 0:
        reason = f"there are {count} inputs, and it takes {_FEWEST_BATCHES}"
        return small, ReconstructionReport(samples=count, steps=0, blocks=(), left=dict.fromkeys(structures, reason))
    pieces = list(batches(inputs, size))[: count // size]
    graph = RunnableGraph(original, pieces[0])
    blocks = blocks_of(graph)
    pieces = pieces[: max(_FEWEST_BATCHES, _MOST_BYTES // max(1, 2 * _largest(blocks)))]
    network = DecomposedNetwork(small, graph)
    streams = Streams(network, pieces)
    layers = dict(original.named_modules(remove_duplicate=False))
    left = _left(network, layers, structures)
    reports: list[BlockReconstruction] = []
    for done, block in enumerate(blocks, start=1):
        streams.enter(block)
        changed = [network.layers[node][0] for node in block.held if node in network.layers]
        if changed:
            reports.append(_corrected(block, streams, layers, structures, left, config))
        streams.leave(block)
        if progress is not None:
            progress(done, len(blocks))
    report = ReconstructionReport(
        samples=size * len(pieces), steps=config.steps, blocks=tuple(reports), left=dict(sorted(left.items()))
    )
    return small, report


def _corrected(
    block: Block,
    streams: Streams,
    layers: Mapping[str, nn.Module],
    structures: Mapping[str, Structure],
    left: Mapping[str, str],
    config: ReconstructionConfig,
) -> BlockReconstruction:
    """Solve and fit one block; each is undone where the inputs that judge say that it is worse."""
    network = streams.network
    parameters = network.parameters_of(block)
    decomposed = streams.judged(block)
    names = []
    before = _state(parameters)
    for node in block.operators:
        for name, own in (network.layers[source] for source in node.all_input_nodes if source in network.layers):
            names.append(name)
            if name not in left:
                solve_layer_(own, layers[name], structures[name], streams, block, node)
    solved = _better(streams.judged(block), decomposed, parameters, before)
    fitted, before = solved, _state(parameters)
    if config.steps and parameters:
        fit_block_(parameters, streams, block, config)
        fitted = _better(streams.judged(block), solved, parameters, before)
    return BlockReconstruction(layers=tuple(dict.fromkeys(names)), decomposed=decomposed, solved=solved, fitted=fitted)


def _state(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter.detach().clone() for parameter in parameters]  # type: ignore[misc]


def _better(after: float, before: float, parameters: Sequence[nn.Parameter], values: Sequence[nn.Parameter]) -> float:
    """Return the smaller error; put the values from before back where the new ones are no better."""
    if math.isfinite(after) and after < before:
        return after
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    return before


def _left(
    network: DecomposedNetwork, layers: Mapping[str, nn.Module], structures: Mapping[str, Structure]
) -> dict[str, str]:
    """Return why layers are not solved for, by their names."""
    left = {}
    for name in structures:
        runs = network.runs.get(name, 0)
        if runs == 0:
            left[name] = "it does not run"
        elif runs > 1:
            left[name] = f"it runs {runs} times, on inputs of several kinds"
        elif not PairedMoments.fits(layers[name]):
            left[name] = "it has too many inputs for moments of pairs"
    return left


def _largest(blocks: Sequence[Block]) -> int:
    """Return the bytes of the values between two blocks for one batch, where they are most."""

    def size(block: Block) -> int:
        values = tensors([node.meta.get("val") for node in block.alive])
        return sum(value.numel() * value.element_size() for value in values)

    return max(map(size, blocks))
