"""Inputs and outputs of models: pytrees of tensors, as torch.export takes them (``torch.utils._pytree``).

Inputs say how a model is called: a tensor is its one argument, a tuple or a list its positional arguments, a dict its
keyword arguments. Each argument, and the output, may be any pytree. Leaves that are no tensors belong to the call. What
is `Shared` has no batch axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sekron_edge.errors import ConfigError

# Any pytree of tensors. Python's type system has no recursive generics over registered containers.
Inputs = Any
Outputs = Any


class Shared:
    """What is the same for all samples, in a sample's inputs: it is not stacked, and has no batch axis.

    A tensor in it is an input of the artifact, of its own shape; a number or a word is a constant of the model's call.

    Args:
        value: A tensor or a constant, or any pytree of these; the model gets it as it is.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def to(self, device: Any, **settings: Any) -> Shared:
        """Return it on a device, as data loaders move batches."""
        return Shared(map_tensors(lambda tensor: tensor.to(device, **settings), self.value))

    def equals(self, other: Shared) -> bool:
        """Whether the same values are shared."""
        if self.value is other.value:
            return True
        (own, spec), (others, other_spec) = pytree.tree_flatten(self.value), pytree.tree_flatten(other.value)
        return spec == other_spec and all(map(_equal, own, others))

    def __repr__(self) -> str:
        leaves = (tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in pytree.tree_leaves(self.value))
        return f"Shared({', '.join(map(str, leaves))})"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one is other or (type(one) is type(other) and one == other))


pytree.register_pytree_node(
    Shared,
    lambda shared: ([shared.value], None),
    lambda values, _: Shared(next(iter(values))),
    serialized_type_name=f"{__name__}.{Shared.__name__}",
)


def _is_shared(tree: Any) -> bool:
    return isinstance(tree, Shared)


def _bare(tree: Any) -> Any:
    """Return a pytree as a model gets it, with what is shared in its place."""
    return pytree.tree_map(lambda part: part.value if _is_shared(part) else part, tree, is_leaf=_is_shared)


def map_batched(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return a pytree with a function of each tensor that is not shared; all else stays."""
    return pytree.tree_map(lambda part: function(part) if isinstance(part, Tensor) else part, tree, is_leaf=_is_shared)


class PerSample(list[Any]):
    """One thing for each sample of a batch, where they differ in shape and cannot be stacked: the boxes of images."""


pytree.register_pytree_node(
    PerSample,
    lambda items: (list(items), None),
    lambda items, _: PerSample(items),
    flatten_with_keys_fn=lambda items: ([(pytree.SequenceKey(i), item) for i, item in enumerate(items)], None),
)


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that inputs stand for."""
    inputs = _bare(inputs)
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    # A named tuple is one argument: it has a meaning of its own.
    if isinstance(inputs, list) or type(inputs) is tuple:
        return tuple(inputs), {}
    return (inputs,), {}


def call(model: Callable[..., Outputs], inputs: Inputs) -> Outputs:
    """Return a model's outputs for inputs."""
    args, kwargs = arguments(inputs)
    return model(*args, **kwargs)


def tensors(tree: Any) -> list[Tensor]:
    """Return all tensors of a pytree, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def named_tensors(tree: Any, alone: str = "output") -> dict[str, Tensor]:
    """Return the tensors of a pytree by their place in it, as ``boxes`` or ``features.0``; a lone one as ``alone``."""
    named = {}
    for path, leaf in pytree.tree_flatten_with_path(_bare(tree))[0]:
        if isinstance(leaf, Tensor):
            named[".".join(str(_key(part)) for part in path) or alone] = leaf
    return named


def places(tree: Any, kind: str) -> list[str]:
    """Return a name for each tensor of a pytree: its place, as ``boxes``, with ``kind`` before a mere number."""
    return [f"{kind}_{place}" if place.isdigit() else place for place in named_tensors(tree, "0")]


def _key(part: Any) -> Any:
    """Return the index, key or name of a step into a pytree."""
    return next(getattr(part, field) for field in ("idx", "key", "name") if hasattr(part, field))


def map_tensors(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return a pytree with a function of each tensor; other leaves stay."""
    return pytree.tree_map_only(Tensor, function, tree)


# What may be in inputs and outputs: torch.export keeps the values of what is no tensor.
_KNOWN = (Tensor, type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


def foreign(tree: Any) -> str | None:
    """Return, in words, a leaf that is neither a tensor nor a constant, and what to do about it; None if there is none.

    Containers that PyTorch does not know are leaves, and tensors in them would be lost.
    """
    for path, leaf in pytree.tree_flatten_with_path(_bare(tree))[0]:
        if isinstance(leaf, _KNOWN):
            continue
        kind, place = type(leaf).__name__, ".".join(str(_key(part)) for part in path)
        if isinstance(leaf, np.ndarray | np.generic):
            remedy = "make it a tensor with torch.from_numpy"
        elif dataclasses.is_dataclass(leaf):
            remedy = f"make it a dict, or call torch.export.register_dataclass({kind}) before"
        else:
            remedy = "make it a tuple, a list or a dict of tensors"
        return f"{'an' if kind[:1] in 'AEIOUaeiou' else 'a'} {kind}{place and f' at {place}'}: {remedy}"
    return None


def in_single(tree: Any) -> Any:
    """Return a pytree with tensors of other float types in float32, in which models are exported."""
    return map_tensors(lambda value: value.float() if value.is_floating_point() else value, tree)


def first(inputs: Inputs) -> Inputs:
    """Return the first sample of batched inputs, as a batch of 1."""
    return next(batches(inputs, 1))


def restored(leaves: list[Tensor], like: Any) -> Any:
    """Return tensors in the structure of a pytree that has as many; its other leaves are taken as they are.

    Raises:
        ConfigError: If the numbers differ.
    """
    found, spec = pytree.tree_flatten(like)
    if sum(isinstance(leaf, Tensor) for leaf in found) != len(leaves):
        raise ConfigError(f"{len(leaves)} tensors do not fit the structure {spec}")
    given = iter(leaves)
    return pytree.tree_unflatten([next(given) if isinstance(leaf, Tensor) else leaf for leaf in found], spec)


def batch_size(inputs: Inputs) -> int:
    """Return the number of samples in a batch: the length of its first tensor that is not shared, or of a `PerSample`.

    Raises:
        ConfigError: If there is no tensor with a batch axis.
    """
    leaves = pytree.tree_leaves(inputs, is_leaf=lambda part: isinstance(part, Shared | PerSample))
    batched = next((x for x in leaves if isinstance(x, PerSample) or (isinstance(x, Tensor) and x.ndim)), None)
    if batched is None:
        raise ConfigError("inputs must hold a tensor with a batch axis; they hold none")
    return len(batched)


def batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Return batched inputs in pieces of up to ``size`` samples.

    What is `Shared` is in every piece, and so is a tensor whose first axis is not as long as the batch.
    """
    count = batch_size(inputs)

    def piece(start: int) -> Inputs:
        def part(x: Any) -> Any:
            if isinstance(x, PerSample):
                return PerSample(x[start : start + size])
            return x[start : start + size] if isinstance(x, Tensor) and x.ndim and len(x) == count else x

        return pytree.tree_map(part, inputs, is_leaf=lambda x: isinstance(x, Shared | PerSample))

    return map(piece, range(0, count, size))


def concatenated(trees: list[Any]) -> Any:
    """Join pytrees of batches, equal in structure, along the batch axis; scalars are stacked.

    Raises:
        ConfigError: If their structures differ.
    """
    flat = [pytree.tree_flatten(tree) for tree in trees]
    if any(spec != flat[0][1] for _, spec in flat):
        raise ConfigError("a model must give outputs of one structure for all batches; it gave different ones")
    joined = [_joined(list(leaves)) for leaves in zip(*(leaves for leaves, _ in flat), strict=True)]
    return pytree.tree_unflatten(joined, flat[0][1])


def _joined(leaves: list[Any]) -> Any:
    if not isinstance(leaves[0], Tensor):
        return leaves[0]
    return torch.stack(leaves) if leaves[0].ndim == 0 else torch.cat(leaves)
