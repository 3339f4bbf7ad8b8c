"""Recurrent layers whose matrices are linear layers, one step after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import UnsupportedLayerError

Recurrent = nn.LSTM | nn.GRU | nn.RNN
# An exported graph holds every step; from this many on, converting it takes minutes.
MOST_STEPS = 256


class UnrolledRecurrence(nn.Module):
    """Computes what ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` computes; its matrices are layers, which can be factorized.

    The input's matrix is applied to all steps at once, the hidden state's at each step.

    Args:
        original: Left untouched.

    Raises:
        UnsupportedLayerError: If ``original`` is an LSTM with projections.
    """

    def __init__(self, original: Recurrent) -> None:
        super().__init__()
        if original.proj_size:
            raise UnsupportedLayerError("an LSTM with projections (proj_size) stays as it is")
        self.batch_first = original.batch_first
        self.dropout = original.dropout
        self.hidden_size = original.hidden_size
        self.num_layers = original.num_layers
        self.bidirectional = original.bidirectional
        self.has_cell = isinstance(original, nn.LSTM)
        suffixes = ["", "_reverse"] if original.bidirectional else [""]
        self.cells = nn.ModuleList(
            _Cell(original, f"_l{layer}{suffix}") for layer in range(original.num_layers) for suffix in suffixes
        )
        self.train(original.training)

    def forward(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """Run all steps. Arguments, shapes and results are those of the original, without packed sequences."""
        batched = x.ndim == 3
        x = x if batched else x[None]
        x = x.transpose(0, 1) if batched and not self.batch_first else x
        states = self._initial(x, hx, batched)
        last: list[list[Tensor]] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in range(directions):
                number = layer * directions + direction
                output, state = self.cells[number](x, [state[number] for state in states], direction == 1)
                outputs.append(output)
                last.append(state)
            x = torch.cat(outputs, -1) if directions == 2 else outputs[0]
        final = [torch.stack(list(parts)) for parts in zip(*last, strict=True)]
        if not batched:
            x, final = x[0], [state.squeeze(1) for state in final]
        elif not self.batch_first:
            x = x.transpose(0, 1)
        return x, tuple(final) if self.has_cell else final[0]

    def _initial(self, x: Tensor, hx: Tensor | tuple[Tensor, Tensor] | None, batched: bool) -> list[Tensor]:
        """Return the states of all cells at the first step, ``(cells, batch, hidden)`` each."""
        if hx is None:
            zeros = x.new_zeros(len(self.cells), x.shape[0], self.hidden_size)
            return [zeros, zeros] if self.has_cell else [zeros]
        states = [hx] if isinstance(hx, Tensor) else list(hx)
        return states if batched else [state[:, None] for state in states]


class _Cell(nn.Module):
    """One layer of a recurrence in one direction."""

    def __init__(self, original: Recurrent, suffix: str) -> None:
        super().__init__()
        self.kind = original.mode  # of torch: LSTM, GRU, RNN_TANH, RNN_RELU
        self.input = _linear(original, f"ih{suffix}")
        self.hidden = _linear(original, f"hh{suffix}")
        if self.kind != "GRU" and original.bias:
            # One of the two biases is enough; a GRU's gate stands between them.
            self.input.bias.data += self.hidden.bias.data
            self.hidden.register_parameter("bias", None)

    def forward(self, x: Tensor, state: list[Tensor], reverse: bool) -> tuple[Tensor, list[Tensor]]:
        """Run all steps of ``(batch, steps, features)``; return the outputs and the last state."""
        step: Callable[[Tensor, list[Tensor]], list[Tensor]] = {"LSTM": self._lstm, "GRU": self._gru}.get(
            self.kind, self._rnn
        )
        projected = self.input(x).unbind(1)
        outputs = []
        for each in reversed(projected) if reverse else projected:
            state = step(each, state)
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if reverse else outputs, 1), state

    def _lstm(self, x: Tensor, state: list[Tensor]) -> list[Tensor]:
        hidden, cell = state
        into, forget, candidate, out = (x + self.hidden(hidden)).chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(candidate)
        return [torch.sigmoid(out) * torch.tanh(cell), cell]

    def _gru(self, x: Tensor, state: list[Tensor]) -> list[Tensor]:
        (hidden,) = state
        reset_x, update_x, new_x = x.chunk(3, -1)
        reset_h, update_h, new_h = self.hidden(hidden).chunk(3, -1)
        update = torch.sigmoid(update_x + update_h)
        new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
        return [new + update * (hidden - new)]

    def _rnn(self, x: Tensor, state: list[Tensor]) -> list[Tensor]:
        total = x + self.hidden(state[0])
        return [torch.relu(total) if self.kind == "RNN_RELU" else torch.tanh(total)]


def _linear(original: Recurrent, name: str) -> nn.Linear:
    weight = original.get_parameter(f"weight_{name}").detach()
    layer = nn.Linear(weight.shape[1], weight.shape[0], original.bias, dtype=weight.dtype, device=weight.device)
    layer.weight.data = weight.clone()
    if original.bias:
        layer.bias.data = original.get_parameter(f"bias_{name}").detach().clone()
    return layer
