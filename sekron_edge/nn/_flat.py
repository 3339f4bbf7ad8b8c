"""Models of any pytrees as models of tensors: several tensors in, several out, as files of models have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.nn._admission import exportable
from sekron_edge.nn._outputs import exportable_inputs, outputs_for


class FlatModel(nn.Module):
    """Takes the tensors of a model's inputs one by one, and gives those of its outputs as a tuple.

    Args:
        model: Called as `sekron_edge.pytrees.call` does; not copied.
        inputs: Their structure, and the values of leaves that are no tensors.
    """

    def __init__(self, model: nn.Module, inputs: pytrees.Inputs) -> None:
        super().__init__()
        self.model = model
        # Only the structure counts: tensors without values hold the places.
        self._like = pytrees.map_tensors(lambda _: torch.empty(0, device="meta"), inputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Call the model."""
        outputs = pytrees.call(self.model, pytrees.restored(list(given), self._like))
        # Files have no scalars.
        return tuple(out.reshape(1) if out.ndim == 0 else out for out in pytrees.tensors(outputs))


@dataclass(frozen=True)
class Flattened:
    """A model of tensors, and what its tensors are in the model that it was made of.

    Attributes:
        model: Takes tensors, and gives a tensor or a tuple of them.
        inputs: Its inputs, floats in float32.
        input_places: The place of each input, as ``left`` or ``input_0``.
        output_places: The place of each output, as ``boxes`` or ``output_0``.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    input_places: tuple[str, ...]
    output_places: tuple[str, ...]

    def layers_named(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names that layers of the model have in this one."""
        return tuple(f"model.{name}" for name in names) if isinstance(self.model, FlatModel) else tuple(names)


def flattened(model: nn.Module, inputs: pytrees.Inputs) -> Flattened:
    """Return a model that takes tensors one by one; in float32, on the CPU.

    It is the model itself where that is such a model; one in another precision, or on another device, is copied.

    Args:
        model: Run once on the inputs.
        inputs: In the form of `sekron_edge.pytrees.call`, batched.

    Raises:
        ConfigError: If the model cannot be exported (`sekron_edge.nn.admitted`), the inputs or the outputs hold no
            tensor, or the model does not take the inputs.
    """
    model = exportable(model)
    inputs = exportable_inputs(inputs, model)
    args, kwargs = pytrees.arguments(inputs)
    outputs = outputs_for(model, inputs)
    plain_inputs = not kwargs and all(isinstance(value, Tensor) for value in args)
    given = outputs if type(outputs) is tuple else (outputs,)  # a named tuple is a structure of its own
    plain = plain_inputs and all(isinstance(value, Tensor) and value.ndim for value in given)
    return Flattened(
        model if plain else FlatModel(model, inputs),
        tuple(pytrees.tensors(inputs)),
        tuple(pytrees.places(inputs, "input")),
        tuple(pytrees.places(outputs, "output")),
    )
