"""Multi-head attention whose projections are linear layers."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sekron_edge.errors import UnsupportedLayerError


class ProjectedAttention(nn.Module):
    """Computes what ``nn.MultiheadAttention`` computes; its projections are layers, which can be factorized.

    ``nn.MultiheadAttention`` keeps the projections of queries, keys and values in one parameter, and hands that of the
    output to a function. Where query, key and value are one tensor, one layer projects to all three.

    Args:
        original: Left untouched.
        packed: Whether query, key and value are one tensor in all calls.

    Raises:
        UnsupportedLayerError: If ``original`` adds biases or zeros to keys and values.
    """

    def __init__(self, original: nn.MultiheadAttention, *, packed: bool) -> None:
        super().__init__()
        if original.bias_k is not None or original.add_zero_attn:
            raise UnsupportedLayerError("attention that adds biases or zeros to keys and values stays as it is")
        self.embed_dim = original.embed_dim
        self.num_heads = original.num_heads
        self.head_dim = original.head_dim
        self.batch_first = original.batch_first
        self.dropout = original.dropout
        # What torch.nn's containers look at to decide whether a fused kernel may read the projections' parameters.
        self._qkv_same_embed_dim = False
        self.in_proj_weight = None
        self.in_proj_bias = None
        weights = _projections(original)
        biases = [None] * 3 if original.in_proj_bias is None else list(original.in_proj_bias.detach().chunk(3))
        self.packed = packed and original._qkv_same_embed_dim
        if self.packed:
            bias = None if biases[0] is None else torch.cat([each for each in biases if each is not None])
            self.in_proj = _linear(torch.cat(weights), bias)
        else:
            self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)
        out = original.out_proj
        self.out_proj = _linear(out.weight.detach(), None if out.bias is None else out.bias.detach())
        self.train(original.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend. Arguments, shapes and results are those of ``nn.MultiheadAttention``."""
        batched = query.ndim == 3
        if not batched:
            query, key, value = (each[None] for each in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = (each.transpose(0, 1) for each in (query, key, value))
        q, k, v = map(self._heads, self._projected(query, key, value))
        mask = self._mask(attn_mask, key_padding_mask, q, is_causal)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.mT / sqrt(self.head_dim)
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            heads = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights[0]
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        joined: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return joined[0], weights
        return joined if self.batch_first else joined.transpose(0, 1), weights

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if self.packed:
            projected: Tensor = self.in_proj(query)
            return projected.chunk(3, -1)
        return self.q_proj(query), self.k_proj(key), self.v_proj(value)

    def _heads(self, x: Tensor) -> Tensor:
        """Return ``(batch, length, embed)`` as ``(batch, heads, length, head)``."""
        heads: Tensor = x.unflatten(-1, (self.num_heads, self.head_dim))
        return heads.transpose(1, 2)

    def _mask(self, own: Tensor | None, padding: Tensor | None, queries: Tensor, is_causal: bool) -> Tensor | None:
        """Return what is added to scores ``(batch, heads, length, source)``, or None."""
        if is_causal and own is None:
            raise UnsupportedLayerError("is_causal is a hint on attn_mask: give the mask as well")
        mask = None
        if own is not None:
            mask = _added(own, queries.dtype)
            if mask.ndim == 3:
                mask = mask.unflatten(0, (-1, self.num_heads))
        if padding is not None:
            padded = _added(padding, queries.dtype)[:, None, None]
            mask = padded if mask is None else mask + padded
        return mask


def _projections(original: nn.MultiheadAttention) -> list[Tensor]:
    if original.in_proj_weight is not None:
        return list(original.in_proj_weight.detach().chunk(3))
    separate = (original.q_proj_weight, original.k_proj_weight, original.v_proj_weight)
    return [weight.detach() for weight in separate]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype, device=weight.device)
    layer.weight.data = weight.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


def _added(mask: Tensor, kind: torch.dtype) -> Tensor:
    """Return a mask as values that are added: where a boolean one is true, nothing attends."""
    if mask.dtype != torch.bool:
        return mask.to(kind)
    return torch.zeros(mask.shape, dtype=kind, device=mask.device).masked_fill(mask, -torch.inf)
