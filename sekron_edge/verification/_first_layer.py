"""The first layer of which an artifact and its model differ."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sekron_edge import pytrees
from sekron_edge.artifacts import Array, Artifact, batch_and_total, export_tensors, get_exporter, predict, whole_batches
from sekron_edge.errors import ConfigError, ExportError
from sekron_edge.nn import FlatModel, unfused_attention
from sekron_edge.verification._comparison import Tolerance, compare

# Layers whose outputs one export shows: few, so that what converters fuse stays fused.
_TAPS = 7
_LONGEST_S = 120.0


class _Seen:
    """Holds the output of a layer while a model runs. Tracers follow it, where they refuse hooks."""

    output: Tensor | None = None


class _Watched(nn.Module):
    """In the place of a layer: calls it, and shows its output."""

    def __init__(self, layer: nn.Module, seen: _Seen) -> None:
        super().__init__()
        self.layer = layer
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        """Be the layer to those that look at its attributes."""
        if name in self.__dict__["_modules"]:
            return super().__getattr__(name)
        return getattr(super().__getattr__("layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.layer(*args, **kwargs)
        if self._seen.output is None:
            self._seen.output = output
        return output


class Taps(nn.Module):
    """Returns the outputs of some layers of a model, each at its first call."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self._seen = [_Seen() for _ in layers]
        for layer, seen in zip(layers, self._seen, strict=True):
            self.model.set_submodule(layer, _Watched(self.model.get_submodule(layer), seen))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for seen in self._seen:
            seen.output = None
        self.model(*inputs)
        outputs = tuple(seen.output for seen in self._seen if seen.output is not None)
        for seen in self._seen:
            seen.output = None  # a tensor with a gradient could not be copied with the model
        assert len(outputs) == len(self._seen)
        return outputs


def model_outputs(model: nn.Module, inputs: Sequence[Tensor], artifact: Artifact) -> list[Array]:
    """Return a model's outputs; in batches of the artifact's size, if they are not one for each sample."""
    evaluated = copy.deepcopy(model).eval()
    shapes = [spec.torch_shape for spec in artifact.inputs]
    size, total = batch_and_total(inputs, shapes)

    def run(values: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad(), unfused_attention():
            result = evaluated(*values)
        return list(result) if isinstance(result, tuple) else [result]

    results = run(inputs)
    if total > size and any(not value.ndim or len(value) != total for value in results):
        results = list(pytrees.concatenated([run(piece) for piece in whole_batches(inputs, shapes)]))
    return [value.numpy() for value in results]


def _layers(model: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Return the leaves with one tensor as output, in the order in which they run; without those that do nothing."""
    evaluated = copy.deepcopy(model).eval()
    order: list[str] = []

    def note(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        nothing = output is given[0] and not getattr(module, "inplace", False) if given else False
        if isinstance(output, Tensor) and name not in order and not nothing:
            order.append(name)

    for name, module in evaluated.named_modules():
        # A factorized layer's only child is its list of weights: the layer is the leaf.
        children = [child for child in module.children() if not isinstance(child, nn.ParameterList)]
        if name and not children and not isinstance(module, nn.ParameterList):
            module.register_forward_hook(lambda own, given, output, name=name: note(name, own, given, output))
    with torch.no_grad():
        evaluated(*inputs)
    return order


def first_layer_that_differs(
    artifact: Artifact,
    model: nn.Module,
    inputs: Sequence[Tensor],
    allowed: Tolerance,
    calibration: Sequence[Tensor] | None,
    classes: int | None,
) -> str:
    """Export the model again with the outputs of some layers, then of some between; name the first that differs.

    A search that takes longer than two minutes ends with the layers among which it is.
    """
    started = time.monotonic()
    kept = [f"model.{name}" if isinstance(model, FlatModel) else name for name in artifact.keep_float]
    example = tuple(next(whole_batches(inputs, [spec.torch_shape for spec in artifact.inputs])))
    exporter = get_exporter(artifact.format)

    def first_different(candidate: nn.Module) -> int | None:
        """Return the number of the first output that differs, if one does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"part{exporter.suffix}"
            names = [f"model.{name}" for name in kept] if isinstance(candidate, Taps) else kept
            part = export_tensors(
                candidate, example, format=artifact.format, precision=artifact.precision, path=path,
                calibration=calibration, keep_float=names,
            )  # fmt: skip
            actual = predict(exporter.load(part), part, [value.numpy() for value in inputs])
        pairs = enumerate(zip(model_outputs(candidate, inputs, artifact), actual, strict=True))
        differing = (at for at, (one, other) in pairs if not compare([one], [other], classes=classes).within(allowed))
        return next(differing, None)

    try:
        if first_different(model) is None:
            return "A fresh export of the model agrees: the file is damaged, or of another model; export it again."
        layers = _layers(model, inputs)
        low, high = 0, len(layers)
        while low < high and time.monotonic() - started < _LONGEST_S:
            tapped = sorted({low + (high - low) * step // (_TAPS + 1) for step in range(1, _TAPS + 1)})
            first = first_different(Taps(model, [layers[at] for at in tapped]))
            if first is None:
                low = tapped[-1] + 1
            else:
                low, high = tapped[first - 1] + 1 if first else low, tapped[first]
    except (ConfigError, ExportError) as error:
        return f"The layer could not be found: {error}"
    if low == len(layers):
        return "Every layer by itself agrees; the difference comes after the last one, in the model's own forward()."
    if low < high:
        last = "one after the last layer" if high == len(layers) else repr(layers[high])
        return f"The first layer that differs is one from {layers[low]!r} to {last}."
    kind = type(model.get_submodule(layers[low])).__name__
    return f"The first layer that differs is {layers[low]!r} ({kind})."
