"""What a graph must be so that a file can hold it: of fixed shapes, the same at every run, and without memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from sekron_edge.errors import ExportError
from sekron_edge.users_code import line_in, line_of

_LONGEST_CAUSE = 400
# Arguments of operators that draw random numbers only in training; and their share, where that may be zero.
_IN_TRAINING = ("train", "training")
_SHARES = ("p", "dropout_p")
_RAW_HEADS = (
    "If this sorts out detections (non-maximum suppression, a threshold on scores), export the model's raw heads, and "
    "do it outside of the artifact"
)


def require_exportable(exported: torch.export.ExportedProgram, model: str) -> None:
    """Refuse a graph that no file can hold.

    Args:
        exported: Traced in evaluation mode.
        model: Its name, for messages.

    Raises:
        ExportError: If a shape depends on values, if random numbers are drawn, or if a buffer is changed; names the
            operator and the user's line, or the buffer.
    """
    signature = exported.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held |= signature.inputs_to_lifted_tensor_constants
    for node in exported.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _require_no_memory(node, held, model)
            _require_same_shapes(node, model)
            _require_same_values(node, model)


def _require_no_memory(node: fx.Node, held: Mapping[str, str], model: str) -> None:
    changed = node.args[0] if node.target is torch.ops.aten.copy_.default else None
    if isinstance(changed, fx.Node) and changed.name in held:
        raise ExportError(
            f"{model} changes its own {held[changed.name]} when it runs, and artifacts have no memory between runs: "
            "take the state as an input and give it as an output, or leave it alone in evaluation mode"
        )


def _require_same_shapes(node: fx.Node, model: str) -> None:
    found = node.meta.get("val")
    each = found if isinstance(found, tuple | list) else [found]
    sizes = [size for value in each if isinstance(value, torch.Tensor) for size in value.shape]
    if any(isinstance(size, torch.SymInt) for size in sizes):
        raise ExportError(
            f"{model}: how many values {_operator(node)} gives depends on the inputs' values{_place(node)}, and "
            f"artifacts have fixed shapes. {_RAW_HEADS}; masks can multiply (torch.where) instead of selecting"
        )


def _require_same_values(node: fx.Node, model: str) -> None:
    operator = node.target
    assert isinstance(operator, torch._ops.OpOverload)
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return
    given = {argument.name: argument.default_value for argument in operator._schema.arguments}
    given |= dict(zip((argument.name for argument in operator._schema.arguments), node.args, strict=False))
    given |= node.kwargs
    only_training = any(name in given and not given[name] for name in _IN_TRAINING)
    nothing = any(name in given and given[name] == 0 for name in _SHARES)
    if not only_training and not nothing:
        raise ExportError(
            f"{model} draws random numbers in evaluation mode, in {_operator(node)}{_place(node)}: give dropout the "
            "module's own mode, as F.dropout(x, p, self.training), and take noise as an input"
        )


def _operator(node: fx.Node) -> str:
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target._schema.name.removeprefix("aten::")


def _place(node: fx.Node) -> str:
    line = line_in(node.meta.get("stack_trace") or "")
    return f" ({line})" if line else ""


def tracing_error(error: Exception, model: str) -> ExportError:
    """Return the error of a model that torch.export does not trace: the user's line, the cause, and the remedy."""
    line = line_of(error)
    place = f" at {line}" if line else ""
    said = str(error)
    if isinstance(error, torch.fx.experimental.symbolic_shapes.GuardOnDataDependentSymNode):
        return ExportError(
            f"{model} cannot be traced by torch.export{place}: what runs there depends on the values of a tensor (an "
            "if, a loop, an index, .item(), int() or float() of one), and artifacts run the same operators for all "
            f"inputs. Write it with torch.where, or with constants. {_RAW_HEADS}"
        )
    if ".numpy()" in said:
        return ExportError(
            f"{model} cannot be traced by torch.export{place}: it leaves PyTorch for NumPy there; compute it with torch"
        )
    shortened = said if len(said) <= _LONGEST_CAUSE else f"{said[:_LONGEST_CAUSE]} ..."
    return ExportError(
        f"{model} cannot be traced by torch.export, which every export format needs{place and f'; it stops{place}'}: "
        f"{shortened}"
    )
