"""Steps of Adam on a block's own output, as BRECQ takes for rounding (Li et al. 2021, arXiv 2102.05426)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sekron_edge.nn import Block
from sekron_edge.reconstruction._config import ReconstructionConfig
from sekron_edge.reconstruction._streams import Streams


def fit_block_(
    parameters: Sequence[nn.Parameter], streams: Streams, block: Block, config: ReconstructionConfig
) -> None:
    """Fit a block's parameters to the original's outputs, batch by batch; in place.

    Args:
        parameters: Those that are changed.
        streams: At the block.
        block: The block.
        config: Steps and rate; the rate rises, then falls to nothing (`torch.optim.lr_scheduler.OneCycleLR`).
    """
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps)
    order = torch.Generator().manual_seed(0)
    left: list[int] = []
    with torch.enable_grad():
        for _ in range(config.steps):
            left = left or torch.randperm(len(streams.fitted_to), generator=order).tolist()
            optimizer.zero_grad()
            loss = streams.loss(block, left.pop())
            if not loss.requires_grad:
                return  # a block whose results are decisions, not floats
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            rates.step()
    for parameter in parameters:
        parameter.grad = None
