"""One form of all models for all converters: operators that some of them do not know become plainer ones.

A model without such operators is converted as it is, through its own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from sekron_edge.errors import ExportError
from sekron_edge.nn import CapturedGraph, capture

from ._broadcasts import drop_spreading_, spreads
from ._constants import computes_weights, fold_constants_, fold_weights_, writes_constants
from ._plain import arithmetic, arrangement, convolution, pooling, resizing

aten = torch.ops.aten
Rewrite = Callable[..., Any]
_Table = Mapping[torch._ops.OpOverload, Rewrite]

# Known to none, or wrongly.
_COMMON: _Table = {
    aten.add.Tensor: arithmetic.added,
    aten.add_.Tensor: arithmetic.added,
    aten.sub.Tensor: arithmetic.subtracted,
    aten.sub_.Tensor: arithmetic.subtracted,
    aten.rsub.Tensor: arithmetic.subtracted_from,
    aten.rsub.Scalar: arithmetic.subtracted_from,
    aten.addmm.default: arithmetic.matrix_added,
    aten.baddbmm.default: arithmetic.matrix_added,
    aten.addcmul.default: arithmetic.product_added,
    aten.addcdiv.default: arithmetic.quotient_added,
    aten.lerp.Scalar: arithmetic.interpolated,
    aten.lerp.Tensor: arithmetic.interpolated,
    aten.pad.default: arrangement.padded,
    aten.rrelu.default: arithmetic.leaky_in_evaluation,
    aten.avg_pool2d.default: pooling.mean_of_windows,
    aten.channel_shuffle.default: arrangement.shuffled_channels,
    aten.unfold.default: arrangement.sliding,
    aten.alias.default: arithmetic.same,
    aten.conv1d.padding: convolution.convolution_that_keeps_the_size,
    aten.conv2d.padding: convolution.convolution_that_keeps_the_size,
}
_COREML: _Table = {
    aten.__and__.Tensor: arithmetic.both,
    aten.__or__.Tensor: arithmetic.either,
    aten.__xor__.Tensor: arithmetic.one_of,
    aten.trunc.default: arithmetic.truncated,
    aten.hardtanh.default: arithmetic.clipped,
    aten.hardtanh_.default: arithmetic.clipped,
    aten.celu.default: arithmetic.celu,
    aten.log_sigmoid.default: arithmetic.log_sigmoid,
    aten.rms_norm.default: arithmetic.rms_norm,
    aten.new_ones.default: arrangement.new_ones,
    aten.adaptive_avg_pool3d.default: pooling.mean_of_parts,
    aten.upsample_nearest3d.vec: resizing.nearest,
    aten._upsample_nearest_exact1d.vec: resizing.nearest_exact,
    aten._upsample_nearest_exact2d.vec: resizing.nearest_exact,
    aten.upsample_trilinear3d.vec: resizing.trilinear,
    aten.upsample_bicubic2d.vec: resizing.bicubic,
    aten.cosine_similarity.default: arithmetic.cosine,
    aten.var.correction: arithmetic.variance,
    aten.std.correction: arithmetic.deviation,
    aten.var_mean.correction: arithmetic.variance_and_mean,
    aten.unsafe_split.Tensor: torch.split,
    aten.avg_pool1d.default: pooling.mean_of_spans,
    aten.max_pool2d.default: pooling.largest_of_windows,
    aten.upsample_nearest1d.vec: resizing.nearest_of_no_multiple,
    aten.upsample_nearest2d.vec: resizing.nearest_of_no_multiple,
    aten.upsample_linear1d.vec: resizing.linear_by_factors,
    aten.upsample_bilinear2d.vec: resizing.linear_by_factors,
    aten.gelu.default: arithmetic.gaussian,
    aten.softplus.default: arithmetic.smooth_maximum,
    aten.topk.default: arrangement.sorted_largest,
    aten.cumsum.default: arithmetic.running_sum,
    aten.instance_norm.default: arithmetic.normalized_volumes,
}
_EXECUTORCH: _Table = {
    aten.conv3d.default: convolution.convolution_over_three_axes,
    aten.conv3d.padding: convolution.convolution_over_three_axes,
    aten.avg_pool3d.default: pooling.mean_of_volumes,
    aten.max_pool3d.default: pooling.largest_of_volumes,
    aten.adaptive_max_pool1d.default: pooling.largest_of_parts,
    aten.adaptive_max_pool2d.default: pooling.largest_of_parts,
}
_LITERT: _Table = {
    aten.conv_transpose1d.default: convolution.transposed_convolution,
    aten.conv_transpose2d.input: convolution.transposed_convolution,
    aten.conv_transpose3d.input: convolution.transposed_convolution,
}
# Composite operators of PyTorch that no converter but one knows: taken apart as PyTorch itself does.
_COMPOSITES = (
    "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "bilinear",
    "kron", "embedding_bag",
)  # fmt: skip


@dataclass(frozen=True)
class Converter:
    """What a converter needs.

    Attributes:
        name: In errors.
        rewrites: Operators that it must not see, each with a plainer form.
        refused: Operators that it has no form of, by name, in words.
        spreads: Whether it takes values that are spread over an axis before an operator that would do so itself.
    """

    name: str
    rewrites: _Table
    refused: Mapping[str, str] = field(default_factory=dict)
    spreads: bool = True


_THREE_AXES = "a transposed convolution over three axes"
COREML = Converter("coreml", {**_COMMON, **_COREML})
EXECUTORCH = Converter("executorch", {**_COMMON, **_EXECUTORCH}, {"conv_transpose3d": _THREE_AXES})
EXECUTORCH_COREML = Converter("executorch:coreml", {**_COMMON, **_COREML})  # coremltools is its converter
LITERT = Converter("litert", {**_COMMON, **_LITERT}, {"conv_transpose3d": _THREE_AXES}, spreads=False)


def canonical(model: nn.Module, example_inputs: tuple[torch.Tensor, ...], converter: Converter) -> nn.Module:
    """Return a model with plainer operators in the place of those in a table; itself if it has none of them.

    Args:
        model: In evaluation mode; left untouched.
        example_inputs: The result takes these shapes.
        converter: What converts it next.

    Raises:
        ExportError: If torch.export cannot trace the model, or it has an operator that the converter has no form of.
    """
    captured = capture(model, example_inputs)
    _require_known(captured, converter)
    rewrites = converter.rewrites
    present = {node.target for node in captured.graph.nodes if node.op == "call_function"}
    composites = _composites(present)
    written = writes_constants(captured)
    computed = computes_weights(captured)
    spread = not converter.spreads and spreads(captured.graph)
    if (
        not composites
        and not written
        and not computed
        and not spread
        and not any(op in present and _applies(op, captured.graph, rewrite) for op, rewrite in rewrites.items())
    ):
        return model
    # What composites are made of may need rewriting as well.
    table = {
        op: rewrite for op, rewrite in rewrites.items() if op not in present or _is_safe(op, captured.graph, rewrite)
    }
    with torch.no_grad():
        exported = captured.exported.run_decompositions({**table, **composites})
        program = exported.module(check_guards=False)
        if computed:
            fold_weights_(program)
        if written:
            fold_constants_(program)
        if spread:
            drop_spreading_(program)
    return _Fixed(program)


def _require_known(captured: CapturedGraph, converter: Converter) -> None:
    for node in captured.graph.nodes:
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
        if name in converter.refused:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            where = f" (layer {stack[-1][0]!r})" if stack and stack[-1][0] else ""
            raise ExportError(
                f"{converter.name} has no form of {name}, {converter.refused[name]}{where}: write it otherwise"
            )


class _Fixed(nn.Module):
    """A graph for evaluation only, which refuses to be told so again."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def train(self, mode: bool = True) -> _Fixed:
        """Stay in evaluation mode."""
        del mode
        return self

    def forward(self, *inputs: torch.Tensor) -> object:
        """Run the graph."""
        return self.program(*inputs)


def _applies(op: object, graph: fx.Graph, rewrite: Rewrite) -> bool:
    """Whether a rewrite changes any of an operator's nodes: many are plain already."""
    nodes = [node for node in graph.nodes if node.target is op]
    return _is_safe(op, graph, rewrite) and any(_tried(node, rewrite) is not NotImplemented for node in nodes)


def _is_safe(op: object, graph: fx.Graph, rewrite: Rewrite) -> bool:
    """Whether nobody uses what a rewrite does not compute: indices of the largest."""
    if rewrite is not pooling.largest_of_parts:
        return True
    users = [user for node in graph.nodes if node.target is op for user in node.users]
    return not any(user.args[1:2] == (1,) and user.users for user in users)


def _tried(node: fx.Node, rewrite: Rewrite) -> object:
    """Apply a rewrite to tensors without values."""

    def empty(source: fx.Node) -> Any:
        value = source.meta.get("val")
        return torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value

    args, kwargs = fx.map_arg((node.args, node.kwargs), empty)
    try:
        return rewrite(*args, **kwargs)
    except (RuntimeError, NotImplementedError):  # a rewrite mixes in tensors with values: it changes something
        return None


def _composites(present: Iterable[object]) -> dict[torch._ops.OpOverload, Rewrite]:
    """Return PyTorch's own decompositions of the composite operators that are present."""
    composite = [
        op
        for op in present
        if isinstance(op, torch._ops.OpOverload) and op._schema.name.removeprefix("aten::") in _COMPOSITES
    ]
    if not composite:
        return {}
    known = torch.export.default_decompositions()
    missing = [str(op) for op in composite if op not in known]
    if missing:
        raise ExportError(f"{', '.join(missing)} cannot be written with plainer operators")
    return {op: known[op] for op in composite}
