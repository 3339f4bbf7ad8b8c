"""ReLU6 and its like, taken for a part of the convolution before: its integers need not reach beyond the clamp.

XNNPACK's kernels clamp what they give, and its quantizer knows that of ReLU alone. The output of a convolution before
another clamp would get the range that it has without, and an operator of its own would cut that off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
_CLAMPS = {aten.hardtanh.default, aten.hardtanh_.default}
_CLAMPING = {aten.conv2d.default, aten.linear.default}
_ANNOTATION = "quantization_annotation"


def taking_clamps(quantizer: Any) -> Any:
    """Return an XNNPACK quantizer that from now on rounds after clamps, not before them."""
    annotate: Callable[[fx.GraphModule], fx.GraphModule] = quantizer.annotate

    def annotated(model: fx.GraphModule) -> fx.GraphModule:
        found = annotate(model)
        for node in found.graph.nodes:
            if node.target in _CLAMPS:
                _round_after(node)
        return found

    quantizer.annotate = annotated
    return quantizer


def _round_after(clamp: fx.Node) -> None:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    before = clamp.args[0]
    if not isinstance(before, fx.Node) or before.target not in _CLAMPING or len(before.users) > 1:
        return
    own = before.meta.get(_ANNOTATION)
    if own is None or own.output_qspec is None or clamp.meta.get(_ANNOTATION) is None:
        return
    clamp.meta[_ANNOTATION] = QuantizationAnnotation(output_qspec=own.output_qspec, _annotated=True)
    own.output_qspec = None
