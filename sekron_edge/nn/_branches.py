"""Blocks with branches that exist for training only, as RepVGG and MobileOne have, and that were not merged yet."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

# As the published implementations name what merges branches into one convolution.
_MERGES = re.compile(
    r"(structural_)?re_?param(et(e)?ri[sz]e)?|(switch|convert)_to_deploy|fuse(_model|_convs?|_repvgg_block)?"
)


@dataclass(frozen=True)
class UnmergedBlocks:
    """Modules that seem to have branches for training only.

    Attributes:
        names: Their qualified names; that of the model itself is empty.
        kind: The class of the first.
        method: The one that merges it, by its name.
    """

    names: tuple[str, ...]
    kind: str
    method: str

    def __str__(self) -> str:
        first = f", first {self.names[0]!r}" if self.names[0] else ""
        return (
            f"hint: {self.kind} has {self.method}(), as blocks do whose branches are for training only "
            f"({len(self.names)} of them{first}). If it merges them, call it before the job: the merged model computes "
            "the same with fewer layers"
        )


def unmerged_blocks(model: nn.Module) -> UnmergedBlocks | None:
    """Return the innermost modules that have a method to merge branches, and several norms to merge.

    A name says what a method is for, not that it is: this is a hint.
    """
    methods = {name: method for name, module in model.named_modules() if (method := _merging(module)) is not None}
    outer = {name for name in methods if any(_is_within(other, name) for other in methods if other != name)}
    inner = {name: method for name, method in methods.items() if name not in outer}
    unmerged = [name for name in inner if _norms(model.get_submodule(name)) > 1]
    if not unmerged:
        return None
    first = unmerged[0]
    return UnmergedBlocks(tuple(unmerged), type(model.get_submodule(first)).__name__, inner[first])


def _merging(module: nn.Module) -> str | None:
    """Return the name of a method without arguments that is called as merging is."""
    for name in dir(type(module)):
        method = getattr(type(module), name, None) if _MERGES.fullmatch(name) else None
        if inspect.isfunction(method):
            _, *taken = inspect.signature(method).parameters.values()
            if all(
                each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in taken
            ):
                return name
    return None


def _is_within(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def _norms(module: nn.Module) -> int:
    return sum(isinstance(part, _NormBase) for part in module.modules())
