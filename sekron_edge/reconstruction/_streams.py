"""Two networks on the same inputs, side by side, block by block: the original, and the decomposed one so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from sekron_edge.nn import Block, RunnableGraph
from sekron_edge.pytrees import Inputs
from sekron_edge.reconstruction._network import DecomposedNetwork

# The share of the batches that judges, and that nothing is fitted to.
_JUDGING = 0.25

Values = dict[fx.Node, Any]


def run(graph: RunnableGraph, operators: Sequence[fx.Node], values: Mapping[fx.Node, Any]) -> Values:
    """Return the values after some operators, beside those before them."""
    known = dict(values)
    for node in operators:
        graph.run(node, known)
    return known


class Streams:
    """Values between blocks for every batch, in the original network and in the decomposed one.

    Batch norms use a batch's own statistics in both: the decomposed network's are settled at the end, and what is by
    chance in a batch's statistics must not look like an error of the layers.

    Args:
        network: The decomposed one; what it computes follows its parameters.
        pieces: Batches of one size, at least two; the last ones judge.
    """

    def __init__(self, network: DecomposedNetwork, pieces: Sequence[Inputs]) -> None:
        self.network, self.graph = network, network.graph
        self.original: list[Values] = [self.graph.given(piece) for piece in pieces]
        self.seen: list[Values] = [dict(values) for values in self.original]
        self.wanted: list[Values] = []
        judging = max(1, int(_JUDGING * len(pieces)))
        self.fitted_to = range(len(pieces) - judging)
        self.judges = range(len(pieces) - judging, len(pieces))

    def enter(self, block: Block) -> None:
        """Compute what a block's results should be: the original's."""
        held = {node: self.graph.held[node] for node in block.held}
        with torch.no_grad():
            self.wanted = [
                _kept(run(self.graph, block.operators, {**values, **held}), block.alive) for values in self.original
            ]
        self._spread = {
            node: _variance([values[node] for values in self.wanted])
            for node in block.results
            if isinstance(self.wanted[0][node], Tensor) and self.wanted[0][node].is_floating_point()
        }

    def leave(self, block: Block) -> None:
        """Run the decomposed network through a block, as it is now."""
        with torch.no_grad():
            held = self.network.entering(block)
            self.seen = [
                _kept(run(self.graph, block.operators, {**values, **held}), block.alive) for values in self.seen
            ]
        self.original = self.wanted

    def loss(self, block: Block, batch: int) -> Tensor:
        """Return the error of a block's results on a batch, as a share of their variance; with gradients."""
        values = {**self.seen[batch], **self.network.entering(block)}
        found = run(self.graph, block.operators, values)
        errors = [
            (found[node] - self.wanted[batch][node]).square().mean() / spread for node, spread in self._spread.items()
        ]
        return torch.stack(errors).mean() if errors else torch.zeros(())

    def judged(self, block: Block) -> float:
        """Return the mean loss on the batches that nothing is fitted to."""
        with torch.no_grad():
            return float(torch.stack([self.loss(block, batch) for batch in self.judges]).mean())

    def inputs_of(self, block: Block, node: fx.Node, batches: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first argument of one of a block's operators, in both networks, for some batches."""
        before = block.operators[: block.operators.index(node)]
        source = node.all_input_nodes[0]  # of a convolution or a linear layer
        with torch.no_grad():
            own = {each: self.graph.held[each] for each in block.held}
            held = self.network.entering(block)
            for batch in batches:
                original = run(self.graph, before, {**self.original[batch], **own})
                seen = run(self.graph, before, {**self.seen[batch], **held})
                yield original[source], seen[source]


def _kept(values: Values, alive: Sequence[fx.Node]) -> Values:
    return {node: values[node] for node in alive}


def _variance(values: Sequence[Tensor]) -> float:
    """Return the variance of values over batches, never zero."""
    mean = torch.stack([value.mean() for value in values]).mean()
    return max(float(torch.stack([(value - mean).square().mean() for value in values]).mean()), 1e-12)
